"""Other people's checkpoints in, packs out."""
