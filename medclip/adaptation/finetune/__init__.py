"""Fine-tuning: a labelled table becomes shards and a recipe of the one trainer, and its head goes into the pack."""
