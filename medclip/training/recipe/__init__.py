"""The recipe: one YAML file and its sections, checked before anything starts; it reads no sample and makes no tower."""
