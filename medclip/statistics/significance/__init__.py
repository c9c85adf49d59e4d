"""Hypothesis tests, and what a sample of a size can show."""
