"""The page of a few-shot comparison."""
