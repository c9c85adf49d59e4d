"""Synthetic samples for the tail of a pile, made of the images and words of patients."""
