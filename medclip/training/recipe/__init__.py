"""The recipe: one YAML file, checked before anything starts."""
