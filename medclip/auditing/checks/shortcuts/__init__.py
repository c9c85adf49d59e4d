"""Whether a model reads the disease, or something that goes along with it."""
