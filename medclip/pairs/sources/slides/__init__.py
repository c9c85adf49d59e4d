"""Patches of slides with captions, as shards: the run, its journal and its records; no vectors are computed here."""
