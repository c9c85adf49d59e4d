"""Reports and other free text: split, cleaned and drawn from, by word lists and no model."""
