"""Reports become texts to train on: cleaned, edited by one change, weighed and checked."""
