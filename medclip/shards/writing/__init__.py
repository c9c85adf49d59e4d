"""From a table to tar shards, split by patient."""
