"""Few-shot adaptation: a few labelled studies become a pack that answers their question; measured in `evaluation`."""
