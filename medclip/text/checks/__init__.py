"""Captions and prompts of others, held against records and vocabularies; nothing is written anew."""
