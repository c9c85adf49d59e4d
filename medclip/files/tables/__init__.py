"""The user's tables: read by their bytes, whatever their suffix; what a column means to a verb is said there."""
