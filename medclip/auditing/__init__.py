"""Whether a model works for every patient group, and how sure that is."""
