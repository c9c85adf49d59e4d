"""Captions drawn from records."""
