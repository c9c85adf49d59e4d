"""Resamples of patients, and the intervals made of them; what is measured in them is in `metrics`."""
