"""Which layers of a tower bear few bits (LRP-QViT): relevance by layer, bits by layer."""
