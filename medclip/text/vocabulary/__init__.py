"""Tasks, their classes, and how a radiologist names them; which task a run asks is said elsewhere."""
