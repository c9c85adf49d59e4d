"""Whether embeddings let somebody find a patient again."""
