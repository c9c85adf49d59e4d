"""Which samples, read and augmented how, make a batch."""
