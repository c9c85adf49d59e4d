"""How a run starts, is kept, and becomes a pack."""
