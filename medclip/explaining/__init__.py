"""Heat maps of what an image shares with a sentence, and the checks of whether such a map can be believed."""
