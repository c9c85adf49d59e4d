"""Shards read back, checked, and indexed where others wrote them."""
