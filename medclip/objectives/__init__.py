"""Training objectives: one loss, one file."""
