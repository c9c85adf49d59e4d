"""One cohort, one bootstrap, one interval for each quantity."""
