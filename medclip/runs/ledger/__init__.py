"""One SQLite file per run that remembers every file and every finished study; tables are written in `outputs`."""
