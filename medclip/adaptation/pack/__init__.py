"""The adapted model as a pack: what is written, where, and what its card says; nothing is learned here."""
