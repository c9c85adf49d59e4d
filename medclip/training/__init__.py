"""The training loop: recipe, data, steps, schedule, checkpoints, log; the mathematics of losses is in `objectives`."""
