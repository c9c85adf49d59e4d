"""Where an audit comes from: what was asked of which files, how it is run again, and how what was signed is checked."""
