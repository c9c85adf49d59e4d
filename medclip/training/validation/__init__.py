"""Figures on the validation split while training."""
