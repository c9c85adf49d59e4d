"""What the embeddings of the audited images reveal."""
