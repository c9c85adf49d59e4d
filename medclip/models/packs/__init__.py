"""The folder that holds all a model needs, and the hashes that hold it to that; other layouts are in `interchange`."""
