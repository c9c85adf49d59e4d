"""From the tables of a hospital to one cohort; nothing is measured here."""
