"""How a run starts, is kept, and becomes a pack; not what is computed between."""
