"""Where thresholds come from and what probabilities mean at them; not the rates of groups."""
