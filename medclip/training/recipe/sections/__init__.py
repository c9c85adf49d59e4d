"""The sections of a recipe, one file each, in the order in which a recipe has them. No torch here."""
