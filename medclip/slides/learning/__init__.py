"""Slide-level learning: labels, pooling, heads and what they answer; no slide is read for it, vectors are."""
