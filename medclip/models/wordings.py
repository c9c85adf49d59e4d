"""Several ways to say one thing, in the embedding space: their mean, and how much an answer hangs on the one chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.models.class_vectors import ClassVectors, Kind, TextEncoder, calibrated, ensemble, probabilities
from medclip.text.vocabulary.own_words import Prompt
from medclip.text.vocabulary.prompts import ClassPrompts


@dataclass(frozen=True, eq=False)
class Phrasings:
    """Ways to say one thing."""

    texts: tuple[str, ...]
    single: NDArray[np.float32]
    """float32 [M, D], unit norm: one for each text."""
    mean: NDArray[np.float32]
    """float32 [D]: normalise(mean(single))."""


@dataclass(frozen=True, eq=False)
class PromptVectors:
    """A prompt and its opposite; the logit of an image f is a · (f · positive.mean − f · negative.mean)."""

    prompt: Prompt
    positive: Phrasings
    negative: Phrasings


@dataclass(frozen=True, eq=False)
class Wordings:
    """A class said in single sentences, by template: what its score may be set against."""

    by_template: tuple[tuple[NDArray[np.float32], NDArray[np.float32] | None], ...]
    """Of each template float32 [P, D] that say the class is there and float32 [Q, D] that deny it; None for a class of
    a multi-class task."""

    @property
    def num(self) -> int:
        """How many ways there are to ask: each sentence, with each that denies it in the same template."""
        return sum(len(plus) * (1 if minus is None else len(minus)) for plus, minus in self.by_template)

    def cosines(self, feature_D: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the cosine, less that of the opposite, of each way to ask; [num]."""
        feature = np.asarray(feature_D, np.float64)
        parts = []
        for plus, minus in self.by_template:
            present = plus @ feature
            parts.append(present if minus is None else (present[:, None] - (minus @ feature)[None]).ravel())
        return np.concatenate(parts)


def encode_phrasings(model: TextEncoder, texts: Sequence[str]) -> Phrasings:
    """Encode several ways to say one thing.

    Args:
        model: A loaded model.
        texts: At least one.

    Returns:
        The unit vector of each text and the normalised mean of them. One text is its own mean; repeating all of them
        changes nothing.
    """
    single = np.asarray(model.encode_text(list(texts)), np.float32)
    return Phrasings(tuple(texts), single, ensemble(single, [0] * len(single), 1)[0].astype(np.float32))


def encode_prompt(model: TextEncoder, prompt: Prompt, templates: Sequence[str] = ("{}",)) -> PromptVectors:
    """Encode a prompt and its opposite; a bare finding in each template (`templates_of` a modality has them)."""
    sides = prompt.sentences(templates)
    return PromptVectors(prompt, encode_phrasings(model, sides.positive), encode_phrasings(model, sides.negative))


def wordings_of(model: TextEncoder, classes: Sequence[ClassPrompts]) -> tuple[Wordings, ...]:
    """Encode the single sentences of classes; those that a model has encoded before cost nothing."""
    return tuple(
        Wordings(
            tuple(
                (model.encode_text(list(plus)), model.encode_text(list(minus)) if minus else None)
                for plus, minus in of_class.by_template
            )
        )
        for of_class in classes
    )


def spread_over_wordings(
    feature_D: NDArray[np.floating],
    vectors: ClassVectors,
    wordings: Sequence[Wordings],
    kind: Kind,
    logit_scale: float,
    calibration: Mapping[str, Any] | None = None,
) -> list[tuple[float, float] | None]:
    """Compute by how much logit and probability of each class change with the wording.

    One class at a time is said in single sentences; the others of a multi-class task keep their mean vectors.

    Args:
        feature_D: Mean of the unit vectors of a study's images, not normalised: its logit is the mean of theirs.
        vectors: The class vectors that the study is scored with.
        wordings: Of each class.
        kind: multiclass or multilabel.
        logit_scale: a, the model's exp(logit_scale).
        calibration: As in `score_features`.

    Returns:
        For each class the standard deviations (of the sample, ddof 1) of logit and probability; None for a class that
        is said in one way only.
    """
    feature = np.asarray(feature_D, np.float64)
    means_C = logit_scale * (vectors.positive @ feature)
    spreads: list[tuple[float, float] | None] = []
    for c, ways in enumerate(wordings):
        if ways.num < 2:
            spreads.append(None)
            continue
        logits_MC = np.tile(means_C, (ways.num, 1))
        logits_MC[:, c] = logit_scale * ways.cosines(feature)
        logits_MC = calibrated(logits_MC, vectors.names, calibration)
        chances_M = probabilities(logits_MC, kind)[:, c]
        spreads.append((float(logits_MC[:, c].std(ddof=1)), float(chances_M.std(ddof=1, dtype=np.float64))))
    return spreads
