"""`train.keep`: what a model that learns something new is held to, so that it does not forget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from medclip.training.recipe.sections.section import Section


class Keep(Section):
    """VR-LwF: similarities of the batch's images to random sentences stay what they were in the model of `model.start`.

    It needs no image of what was learned before, only a second pass of each image through the frozen old tower.
    """

    method: Literal["vr-lwf"] = "vr-lwf"
    weight: float = Field(default=1.0, gt=0)
    temperature: float = Field(default=2.0, gt=0)
    symmetric: bool = False
    """Hold each sentence's similarities to the images of the batch as well."""
    target: Literal["old", "new"] = "old"
    """Whose distribution over the sentences is followed: that of the old model, or that of the new one, as WildCLIP has
    it (with temperature 1)."""
    sentences: int = Field(default=1000, ge=2)
    """How many are drawn."""
    length: Annotated[int, Field(ge=1)] = 10
    """Tokens of a sentence between its begin and its end; with `words`, words of it."""
    words: Path | None = None
    """A text file with one word or term a line, of which sentences are made; None draws token ids, special ones left
    out."""
    resample_every: int | None = Field(default=None, ge=1)
    """Steps after which sentences are drawn anew; None keeps those of the start."""
