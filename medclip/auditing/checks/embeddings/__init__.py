"""What embeddings of the audited images reveal: groups, sites, months, patients; not how `medclip embed` makes them."""
