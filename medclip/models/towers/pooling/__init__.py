"""How tokens become one vector."""
