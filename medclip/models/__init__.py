"""Towers, model packs and cards."""
