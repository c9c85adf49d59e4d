"""The user's tables: read by their bytes, whatever their suffix."""
