"""Looking at one study, and at the installation; nothing is scored."""
