"""One reader for each way a slide is stored, behind micrometres."""
