"""Who computes the chunks of a run: this process, or workers of a Ray cluster. Plan and ledger are alike for both."""
