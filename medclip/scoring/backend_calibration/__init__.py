"""Which back-end computes a pack: the fastest of those that leave its answers as they are."""
