"""Captions of others, held against their records."""
