"""Tokenizers, and the mending of text before them; the towers that read tokens are in `models`."""
