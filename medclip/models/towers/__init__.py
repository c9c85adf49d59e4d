"""The two towers: built, started, frozen, saved."""
