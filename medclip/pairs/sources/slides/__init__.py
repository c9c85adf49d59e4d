"""Patches of slides with captions, as shards: the run, its journal and its records; vectors of patches are `medclip.slides`."""
