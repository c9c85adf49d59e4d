"""The verbs, one file each: what each is asked, and what it calls; how anything is computed is in the rooms below."""
