"""One reader for each way a slide is stored, behind micrometres; what is tissue on it is not asked here."""
