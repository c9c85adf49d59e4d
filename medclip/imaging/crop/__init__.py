"""Where in a frame the image lies: breast, retina, lit area, borders. Nothing is cut here without its box being
returned.
"""
