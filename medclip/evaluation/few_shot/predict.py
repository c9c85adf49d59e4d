"""Predictions of a fitted method, and its answer for classes that it was never shown."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.heads import Head, text_head
from medclip.adaptation.methods import Fitted
from medclip.errors import MedclipError, Reason

if TYPE_CHECKING:
    from torch import Tensor

    from medclip.adaptation.prompts.prompted_text_tower import Position
    from medclip.models.model import Model


def predict(base: Model, fitted: Fitted, head: Head, examples: Examples) -> NDArray[np.float32]:
    """Give logits, the mean over each unit's views; float32 [N, C].

    Features of the base are used as they are; a method that changed the towers encodes the pixels anew.
    """
    from medclip.adaptation.data.unit_features import unit_logits
    from medclip.runs.encode import encode_units

    if fitted.clip is None:
        return unit_logits(head, base, examples.features)
    model = _merged(base, fitted)
    return unit_logits(head, model, encode_units(model, examples.pixels))


def novel_head(base: Model, fitted: Fitted, text: ClassText) -> Head:
    """Make the head for other classes with what was learned: the same towers, or the same prompt around other names.

    Raises:
        MedclipError: WRONG_USE for a method that learns a classifier of its classes only.
    """
    if fitted.head.kind == "cocoop":
        return _moved_prompt(base, fitted.head, text)
    vectors = fitted.prompt
    if vectors is not None:
        return _prompt(base, vectors, fitted.settings["position"], text)
    if fitted.clip is not None or fitted.num_trainable == 0:
        model = base if fitted.clip is None else _merged(base, fitted)
        return text_head(text.vectors(model), model.logit_scale)
    raise MedclipError(Reason.WRONG_USE, "it learns a classifier of its own classes and has no answer for others.")


def _merged(base: Model, fitted: Fitted) -> Model:
    from medclip.adaptation.pack.adapted_model import merged_model

    return merged_model(base, fitted)


def _prompt(base: Model, vectors: Tensor, position: Position, text: ClassText) -> Head:
    """Put the learned context of CoOp around other names."""
    import torch

    from medclip.adaptation.prompts.coop import Context, head_of

    if vectors.ndim == 3:
        raise MedclipError(Reason.WRONG_USE, "its prompts belong to its own classes; there are none for others.")
    context = Context(
        base,
        text,
        num_vectors=len(vectors),
        words=None,
        position=position,
        class_specific=False,
        generator=torch.Generator().manual_seed(0),
    )
    with torch.no_grad():
        context.vectors.copy_(vectors)
        return head_of(context(), base.logit_scale, len(text.names))


def _moved_prompt(base: Model, head: Any, text: ClassText) -> Head:
    """Put the learned context of CoCoOp before other names."""
    from medclip.adaptation.prompts.prompted_text_tower import placeholders

    words = placeholders(base.tokenizer, (*text.phrases, *text.negative_phrases), len(head.vectors_MW))
    return replace(head, tokens_RL=words.tokens_CL.numpy(), prefix=words.prefix, num_classes=len(text.names))
