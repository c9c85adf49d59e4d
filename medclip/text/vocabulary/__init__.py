"""Tasks, their classes, and how a radiologist names them."""
