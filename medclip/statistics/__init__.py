"""One cohort, one bootstrap, one interval for each quantity; which groups are compared is not said here."""
