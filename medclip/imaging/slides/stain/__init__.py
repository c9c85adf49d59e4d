"""Stains of a slide: how much of each lies on a pixel, and the same colours on every slide (HED, Macenko, Reinhard)."""
