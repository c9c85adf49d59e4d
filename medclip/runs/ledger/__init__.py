"""The ledger: one SQLite file per run that remembers every file and every finished study."""
