"""Reports and other free text: split, cleaned and drawn from."""
