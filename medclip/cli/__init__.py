"""Commands, derived from what verbs declare, and what each prints; nothing is computed here."""
