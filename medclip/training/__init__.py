"""The training loop: recipe, data, steps, schedule, checkpoints, log."""
