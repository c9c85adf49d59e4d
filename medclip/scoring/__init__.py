"""Plan, ledger, workers, runner and result tables."""
