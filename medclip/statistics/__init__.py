"""One cohort, one bootstrap, one interval for each quantity; which groups are compared, and what is shown, is not here."""
