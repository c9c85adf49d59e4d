"""Vectors of a folder kept, and questions put to them later, when no image is read."""
