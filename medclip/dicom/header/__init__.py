"""Header values: read quickly, read fully, and those that may leave a file; no pixels."""
