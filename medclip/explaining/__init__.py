"""Heat maps of what an image shares with a sentence, and whether it can be believed; pages are not here."""
