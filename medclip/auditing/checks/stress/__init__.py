"""How much worse a model gets, by group, where images or prompts are not as they were; no corruptions."""
