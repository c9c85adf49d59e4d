"""What the audited images share with what a model was trained on."""
