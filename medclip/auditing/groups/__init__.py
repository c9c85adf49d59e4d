"""Figures of groups, their differences and gaps, and the tests of them; no tables are read here."""
