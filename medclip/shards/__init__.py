"""Samples to WebDataset-compatible tar shards and back; index and patient splits."""
