"""Where the tissue is, and where only glass or ink."""
