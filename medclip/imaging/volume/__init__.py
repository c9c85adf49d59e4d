"""Volumes with a place in the patient, from series and files."""
