"""Watching a model over months, without labels, from the tables that its runs write."""
