"""The recipe: one YAML file, checked before anything starts; it reads no sample and makes no tower."""
