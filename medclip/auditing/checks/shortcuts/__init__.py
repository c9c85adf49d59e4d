"""Whether a score goes by the disease, or by a device, a source or a mix of patients; no embeddings."""
