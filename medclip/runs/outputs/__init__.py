"""What a run leaves: tables, run.json, early parts and copies in a store, read back, too; the ledger is in `ledger`."""
