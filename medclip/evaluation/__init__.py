"""How good a pack is: on suites, shards and few-shot draws; groups of people are compared in `auditing`."""
