"""A store of slides in the forms of others: AnnData files, and the folders that LazySlide opens."""
