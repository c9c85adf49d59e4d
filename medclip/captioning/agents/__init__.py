"""Who writes captions: one that measures and needs nothing, a hospital's own endpoint, a model on this machine."""
