"""`text`: the tokenizer."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from medclip.training.recipe.sections.section import Section


class Text(Section):
    """The tokenizer."""

    tokenizer: Path | None = None
    """Folder of a tokenizer; trained on the captions where None."""
    vocab_size: int = Field(default=4096, ge=300)
    context_length: int = Field(default=48, ge=4)
    captions_per_sample: int = Field(default=4, ge=0)
    """Captions drawn of each training sample to train the tokenizer on, beside all wordings of the vocabularies."""
