"""How much worse a model gets, by group, where images, prompts or patches are not as they were."""
