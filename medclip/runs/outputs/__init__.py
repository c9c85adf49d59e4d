"""What a run leaves: its tables and run.json, early parts of them, copies in a store, and a finished run read back."""
