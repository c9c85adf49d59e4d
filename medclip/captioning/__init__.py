"""Words for patches of slides: which patches get a caption, who writes it, what it may say, and where it is kept."""
