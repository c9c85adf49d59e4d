"""Zero-shot, the anchor of every comparison: the task's prompts, and nothing learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.heads import text_head
from medclip.adaptation.methods import Fitted

if TYPE_CHECKING:
    from medclip.models.model import Model


def fit_zero_shot(base: Model, text: ClassText, train: Examples, val: Examples | None, *, seed: int) -> Fitted:
    """Encode the prompts; the examples are not looked at."""
    return Fitted(text_head(text.vectors(base), base.logit_scale), 0)
