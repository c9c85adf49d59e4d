"""The store of vectors: pixel hash × pack × preprocessing. `medclip embed` writes it; no image is read twice."""
