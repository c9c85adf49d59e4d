"""Fewer tokens from block to block of a vision transformer: which ones merge (ToMe, PiToMe), and the tower for it."""
