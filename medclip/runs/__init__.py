"""Plan, ledger, units and rows: what every run over files shares."""
