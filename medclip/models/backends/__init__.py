"""Back-ends: what computes a pack's image tower on a CPU, and a calibration that chooses among them."""
