"""Tokenizers and the cleaning before them."""
