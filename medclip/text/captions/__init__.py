"""Captions that training draws of what is known of an image; tables of captions are written in `pairs`."""
