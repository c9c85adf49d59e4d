"""The part of the page about images and prompts that are not as they were."""
