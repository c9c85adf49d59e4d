"""Few-shot adaptation: a handful of labelled studies become a model pack that answers their question."""
