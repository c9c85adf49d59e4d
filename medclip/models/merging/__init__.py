"""Packs of one ancestor become one, without training: soups, interpolation, and OPCM, one pack after another."""
