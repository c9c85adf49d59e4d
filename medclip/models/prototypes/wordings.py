"""Several ways to say one thing, in the embedding space: their mean, and how much an answer hangs on the one chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.models.prototypes.class_vectors import ClassVectors, TextEncoder, calibrated, ensemble
from medclip.text.vocabulary.prompts import ClassPrompts
from medclip.text.vocabulary.task_kinds import kind_named


@dataclass(frozen=True, eq=False)
class Phrasings:
    """Ways to say one thing."""

    texts: tuple[str, ...]
    single: NDArray[np.float32]
    """float32 [M, D], unit norm: one for each text."""
    mean: NDArray[np.float32]
    """float32 [D]: normalise(mean(single))."""


@dataclass(frozen=True, eq=False)
class Wordings:
    """The single sentences of all classes of a task: the ways in which each of them may be asked."""

    single_SD: NDArray[np.float64]
    """Unit vectors of the sentences."""
    ways: tuple[tuple[NDArray[np.intp], NDArray[np.intp]], ...]
    """Of each class the rows of M sentences that say it is there and of M that deny it: each sentence with each denial
    of its template. The denials of a multi-class task are empty."""


def _products(vectors_MD: NDArray[np.floating], features_SD: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the products of vectors and features, [S, M]: one study at a time, so that its bits are its own."""
    return np.matmul(vectors_MD.astype(np.float64), features_SD[:, :, None])[:, :, 0]


def encode_phrasings(model: TextEncoder, texts: Sequence[str]) -> Phrasings:
    """Encode several ways to say one thing.

    Args:
        model: A loaded model.
        texts: Texts, at least one.

    Returns:
        The unit vector of each text and the normalised mean of them. One text is its own mean; repeating all of them
        changes nothing.
    """
    single = np.asarray(model.encode_text(list(texts)), np.float32)
    return Phrasings(tuple(texts), single, ensemble(single, [0] * len(single), 1)[0].astype(np.float32))


def wordings_of(model: TextEncoder, classes: Sequence[ClassPrompts]) -> Wordings:
    """Encode the single sentences of classes; those that a model has encoded before cost nothing."""
    sentences = list(dict.fromkeys(text for c in classes for text in (*c.positive, *c.negative)))
    row = {text: n for n, text in enumerate(sentences)}
    ways = []
    for of_class in classes:
        pairs = [
            (row[plus], row[minus] if minus is not None else -1)
            for positive, negative in of_class.by_template
            for plus in positive
            for minus in (negative or (None,))
        ]
        rows_M2 = np.array(pairs, np.intp)
        ways.append((rows_M2[:, 0], rows_M2[:, 1] if of_class.negative else np.empty(0, np.intp)))
    return Wordings(np.asarray(model.encode_text(sentences), np.float64), tuple(ways))


def spread_over_wordings(
    features_SD: NDArray[np.floating],
    vectors: ClassVectors,
    wordings: Wordings,
    kind: str,
    logit_scale: float,
    calibration: Mapping[str, Any] | None = None,
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]] | None]:
    """Compute by how much logit and probability of each class change with the wording.

    One class at a time is said in single sentences; the others of a multi-class task keep their mean vectors.

    Args:
        features_SD: Mean of the unit vectors of the images of each of S studies, not normalised: its logit is the mean
            of theirs. The result of a study depends on no other.
        vectors: The class vectors that the study is scored with.
        wordings: Wordings of the same classes.
        kind: Kind of the task, a row of `TASK_KINDS`.
        logit_scale: Scale a, the model's exp(logit_scale).
        calibration: Calibration, as in `score_features`.

    Returns:
        For each class the standard deviations (of the sample, ddof 1) of logit and probability, [S] each; None for a
        class that is said in one way only.
    """
    rules = kind_named(kind)
    features = np.asarray(features_SD, np.float64)
    cosines_SK = _products(wordings.single_SD, features)
    means_SC = calibrated(_products(vectors.positive, features) * logit_scale, vectors.names, calibration)
    spreads: list[tuple[NDArray[np.float64], NDArray[np.float64]] | None] = []
    for c, (name, (plus_M, minus_M)) in enumerate(zip(vectors.names, wordings.ways, strict=True)):
        if len(plus_M) < 2:
            spreads.append(None)
            continue
        cosines_SM = np.take(cosines_SK, plus_M, axis=1)
        if len(minus_M):
            cosines_SM -= np.take(cosines_SK, minus_M, axis=1)
        logits_SM = calibrated((cosines_SM * logit_scale)[:, :, None], [name], calibration)[:, :, 0]
        others_SC = np.delete(means_SC, c, axis=1)
        chances_SM = rules.chance_of(c, logits_SM, others_SC)
        spreads.append((logits_SM.std(axis=1, ddof=1), chances_SM.std(axis=1, ddof=1)))
    return spreads
