"""Methods that change the towers, and the layers that they change."""
