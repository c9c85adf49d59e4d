"""Thresholds, decision curves and reliability."""
