"""Units of a run: read, encoded, turned into rows or skipped with a reason; which they are is planned in `planning`."""
