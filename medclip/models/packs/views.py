"""The key of a pack's config for what makes one vector of the views of an examination. No torch here."""

FUSION = "fusion"
"""Key of a `model_cfg`, and how the names of its weights begin."""
WITHOUT_FUSION = "What fuses the views of an examination is medclip's own and was left out: single images only."
"""Note of an export to another library."""
