"""The pages of a scoring run, picked from its ledger, with their heat maps; scores are computed in `scoring`."""
