"""What a pile of image-text pairs looks like: counted, held against evaluation sets, measured by a pack."""
