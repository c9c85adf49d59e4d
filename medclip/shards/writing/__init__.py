"""Tables of images become tar shards, split by patient; captions for such tables are written in `pairs`."""
