"""Resamples of patients, and the intervals made of them."""
