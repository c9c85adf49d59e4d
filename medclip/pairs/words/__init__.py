"""The words of pairs: who writes them, and what they may say; what training draws at each step is in `text`."""
