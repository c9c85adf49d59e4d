"""Maps of images: what a head over a tower's tokens learns to say of each place."""
