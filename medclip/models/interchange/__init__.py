"""Other people's checkpoints in, packs out; a pack's own form is in `packs`."""
