"""Zero-shot evaluation and patient-clustered intervals."""
