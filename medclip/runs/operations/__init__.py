"""A run from outside: log, metrics, where its time goes, clearing its folder later; nothing of it is computed here."""
