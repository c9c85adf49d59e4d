"""Volumes with a place in the patient, from series and files; which series belong together is in `files/grouping`."""
