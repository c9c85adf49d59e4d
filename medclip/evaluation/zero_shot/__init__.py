"""A pack measured on suites of labelled sets, in words alone."""
