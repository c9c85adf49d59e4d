"""Sections of the page that only some audits have: what was declared, grades, sources, representativeness."""
