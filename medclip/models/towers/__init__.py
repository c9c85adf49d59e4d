"""Towers of images, volumes, ECGs and texts: their table, how they are built and changed, and their tokens."""
