"""What the audited images share with training and among each other; not what embeddings give away."""
