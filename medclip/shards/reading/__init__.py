"""Tars of samples and how they are read, checked and indexed; what training draws of them is in `training`."""
