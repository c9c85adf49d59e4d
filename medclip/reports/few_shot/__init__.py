"""The page of a few-shot comparison; the comparison is in `evaluation`."""
