"""Where in a frame the image lies."""
