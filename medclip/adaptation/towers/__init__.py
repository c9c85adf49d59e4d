"""Methods that change the towers, and the layers that they change; towers themselves are in `models`."""
