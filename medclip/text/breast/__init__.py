"""Reports of mammograms, written from what a table states of a breast."""
