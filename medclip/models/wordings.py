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

    def cosines(self, features_SD: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the cosine, less that of the opposite, of each way to ask; [S, num]."""
        parts = []
        for plus, minus in self.by_template:
            present = _products(plus, features_SD)
            if minus is not None:
                absent = _products(minus, features_SD)
                present = (present[:, :, None] - absent[:, None]).reshape(len(features_SD), -1)
            parts.append(present)
        return np.concatenate(parts, axis=1)


def _products(vectors_MD: NDArray[np.float32], features_SD: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the products of vectors and features, [S, M]: one study at a time, so that its bits are its own."""
    return np.matmul(vectors_MD.astype(np.float64), features_SD[:, :, None])[:, :, 0]


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
    features_SD: NDArray[np.floating],
    vectors: ClassVectors,
    wordings: Sequence[Wordings],
    kind: Kind,
    logit_scale: float,
    calibration: Mapping[str, Any] | None = None,
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]] | None]:
    """Compute by how much logit and probability of each class change with the wording.

    One class at a time is said in single sentences; the others of a multi-class task keep their mean vectors.

    Args:
        features_SD: Of S studies the mean of the unit vectors of its images, not normalised: its logit is the mean of
            theirs. The result of a study depends on no other.
        vectors: The class vectors that the study is scored with.
        wordings: Of each class.
        kind: multiclass or multilabel.
        logit_scale: a, the model's exp(logit_scale).
        calibration: As in `score_features`.

    Returns:
        For each class the standard deviations (of the sample, ddof 1) of logit and probability, [S] each; None for a
        class that is said in one way only.
    """
    features = np.asarray(features_SD, np.float64)
    num, means_SC = len(features), logit_scale * _products(vectors.positive, features)
    spreads: list[tuple[NDArray[np.float64], NDArray[np.float64]] | None] = []
    for c, ways in enumerate(wordings):
        if ways.num < 2:
            spreads.append(None)
            continue
        logits_SMC = np.repeat(means_SC[:, None], ways.num, axis=1)
        logits_SMC[:, :, c] = logit_scale * ways.cosines(features)
        logits_SMC = calibrated(logits_SMC, vectors.names, calibration)
        chances_NC = probabilities(logits_SMC.reshape(-1, means_SC.shape[1]).astype(np.float32), kind)
        of_class = logits_SMC[:, :, c].copy(), chances_NC[:, c].reshape(num, -1).astype(np.float64)
        spreads.append((of_class[0].std(axis=1, ddof=1), of_class[1].std(axis=1, ddof=1)))
    return spreads
