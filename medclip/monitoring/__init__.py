"""Watching a model over months, from the tables that its runs write; no labels, no page."""
