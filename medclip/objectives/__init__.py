"""Training objectives: one loss, one file, of features and pairs alone; what a run adds up is a table of `training`."""
