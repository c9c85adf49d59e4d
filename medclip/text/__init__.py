"""Vocabularies, captions, prompts and tokens."""
