"""Words: tasks and their wordings, captions, free text, checks and tokenizers; no image is opened, no table written."""
