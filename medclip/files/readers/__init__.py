"""Processes that read files, so that a bad file costs itself and nothing else; what they read is handed in."""
