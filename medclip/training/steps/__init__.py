"""What one training step computes, of tensors alone: no file and no schedule."""
