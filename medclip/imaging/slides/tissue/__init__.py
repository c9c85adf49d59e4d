"""Where the tissue is, and where only glass or ink; what tissue it is is not asked here."""
