"""Towers of ECGs."""
