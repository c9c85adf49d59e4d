"""Learning from whole slides: patches pooled into slides, heads, cross-validation by patient, zero-shot."""
