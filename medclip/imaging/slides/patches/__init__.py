"""Patches of a slide, and outlines in and out."""
