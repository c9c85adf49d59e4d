"""Sections that only some audits have, one file each: sentences, findings and tables; all others are in `annex`."""
