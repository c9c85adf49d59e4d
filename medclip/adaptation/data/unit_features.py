"""From read units to what a method learns from: examples, targets, and logits of a unit over its views."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.heads import Head
from medclip.adaptation.data.table import LabelledUnit
from medclip.adaptation.data.token_heads import view_logits
from medclip.models.encoding.unit_reader import ReadUnit
from medclip.sample import spoken


def examples_of(
    units: Sequence[LabelledUnit],
    read: Sequence[ReadUnit] | Mapping[int, ReadUnit],
    indices: Sequence[int],
    text: ClassText,
) -> Examples:
    """Put some of the units together for a method.

    Args:
        units: All units.
        read: Results of reading, by index; those of `indices` have no problem.
        indices: Indices of the units, in this order.
        text: The classes.
    """
    chosen = list(indices)
    targets = [units[i].target for i in chosen]
    return Examples(
        tuple(read[i].pixels for i in chosen),
        tuple(read[i].features for i in chosen),
        targets_of(targets, text),
        tuple(units[i].patient for i in chosen),
    )


def targets_of(targets: Sequence[int | tuple[float | None, ...]], text: ClassText) -> NDArray:
    """Return int64 [N] (multi-class), or float32 [N, C] with NaN for what is not known (multi-label)."""
    if text.rules.one_answer:
        return np.array(targets, np.int64)
    return np.array(targets, np.float32).reshape(len(targets), len(text.names))


def unit_logits(head: Head, model: Any, features: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the logits of units: those of each view, their mean over the unit; exactly as scoring does of a study.

    Args:
        head: The head.
        model: The model of the features; only heads that run the text tower look at it.
        features: float32 [V, D] of each unit; of a head that takes tokens rows of `token_heads.answering`.

    Returns:
        float32 [N, C].
    """
    return np.stack([mean_logits(view_logits(head, model, views)) for views in features])


def mean_logits(logits_VC: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean over the views of a study: float32 [C]."""
    return logits_VC.mean(axis=0, dtype=np.float64).astype(np.float32)


def ways_said(ways: Iterable[str]) -> str:
    """Name ways of reading in a sentence.

    Example:
        >>> ways_said(["xray", "ecg:signal"])
        'X-ray, ECG (signal)'
    """
    parts = [way.partition(":") for way in ways]
    return ", ".join(spoken(name) + (f" ({kind})" if kind else "") for name, _, kind in parts)
