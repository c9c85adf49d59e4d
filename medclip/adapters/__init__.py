"""One modality, one file: a file becomes a Sample."""
