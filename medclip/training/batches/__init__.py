"""Which samples, read and augmented how, make a batch: no torch, and nothing of what a step computes."""
