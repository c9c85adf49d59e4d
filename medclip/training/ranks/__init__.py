"""The processes of a run and what each of them holds; nothing of samples or losses."""
