"""Units of a run: read, encoded, and turned into rows or skipped with a reason."""
