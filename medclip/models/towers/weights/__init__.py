"""Weights of other people's files: read without running anything, and renamed."""
