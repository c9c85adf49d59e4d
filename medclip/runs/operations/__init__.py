"""A run from outside: its log, its metrics, where its time goes, and how its folder is cleared later."""
