"""What one training step computes: terms, gradients, learning rate, weights; its samples come from `batches`."""
