"""Retrieval between images and texts, R@k both ways and ranks, and of images by images, by how alike their labels are.

A pair is right when the two keys are equal, so that several texts of one image, several images of one study, or two
reports with the same words are right answers of each other. Ranks count strictly larger scores, in blocks of rows: the
whole matrix is never held.

Intervals of R@k resample the patients whose queries they are; what is searched stays as it is, since recall is a figure
of a gallery of this size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.statistics.estimate import NUM_RESAMPLES, Estimate
from medclip.statistics.metrics.classification import numbered
from medclip.statistics.resampling.resampled import interval_of, share
from medclip.statistics.resampling.standard_errors import effective_patients
from medclip.statistics.resampling.sums import ratios
from medclip.statistics.resampling.weights import draw_weights

_BLOCK = 1024
_SCORES_AT_ONCE = 1 << 24
KS = (1, 5, 10)


@dataclass(frozen=True)
class Retrieved:
    """How well queries of one kind find what belongs to them."""

    recall: dict[int, float]
    """K to the share of queries with at least one right answer among the K best."""
    median_rank: float
    """Of the best right answer; 1 is first."""
    mean_rank: float
    mrr: float
    """Mean of 1 / rank."""
    num_queries: int
    num_without_answer: int = 0
    """Queries that nothing belongs to; they are left out."""
    intervals: Mapping[int, Estimate] = field(default_factory=dict)
    """K to the recall with its 95 % interval; empty where patients are not given."""


def retrieval(
    images_ND: NDArray[np.floating],
    texts_MD: NDArray[np.floating],
    image_keys: Sequence[Hashable],
    text_keys: Sequence[Hashable],
    *,
    ks: Sequence[int] = KS,
    image_patients: Sequence[Hashable] | None = None,
    text_patients: Sequence[Hashable] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> tuple[Retrieved, Retrieved]:
    """Measure image retrieval (texts ask) and text retrieval (images ask).

    Args:
        images_ND: Vectors of images, float [N, D] of unit norm.
        texts_MD: Vectors of texts, float [M, D] of unit norm.
        image_keys: Key of what each image belongs to, length N.
        text_keys: Key of what each text belongs to, length M.
        ks: Numbers of answers looked at.
        image_patients: Patient of each image; with `text_patients`, answers of the query's own patient that are not
            right are left out: they are neither found nor in the way.
        text_patients: Patient of each text.
        num_resamples: Number of resamples of the patients, for the intervals.
        seed: Seed of the draw of patients.

    Returns:
        Image retrieval, text retrieval.

    Raises:
        MedclipError: WRONG_USE when lengths differ or no pair belongs together.

    Example:
        >>> import numpy as np
        >>> scores = np.array([[0.9, 0.1, 0.2], [0.3, 0.2, 0.6], [0.1, 0.8, 0.7]])
        >>> found, _ = retrieval(np.eye(3), scores, range(3), range(3), ks=(1, 2))
        >>> round(found.recall[1], 4), round(found.recall[2], 4)
        (0.3333, 0.6667)
    """
    by_text, by_image = ranks_of_right(
        images_ND, texts_MD, image_keys, text_keys, image_patients=image_patients, text_patients=text_patients
    )
    draw = (num_resamples, seed)
    return _summary(by_text, ks, text_patients, draw), _summary(by_image, ks, image_patients, draw)


def ranks_of_right(
    images_ND: NDArray[np.floating],
    texts_MD: NDArray[np.floating],
    image_keys: Sequence[Hashable],
    text_keys: Sequence[Hashable],
    *,
    image_patients: Sequence[Hashable] | None = None,
    text_patients: Sequence[Hashable] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rank the best right answer of each query: what comparisons of several models pair by query.

    Arguments are those of `retrieval`.

    Returns:
        int64 [M] of texts that ask and [N] of images that ask; 1 is first, 0 has no right answer.

    Raises:
        MedclipError: WRONG_USE when lengths differ.

    Example:
        >>> import numpy as np
        >>> by_text, by_image = ranks_of_right(np.eye(2), np.array([[0.9, 0.1], [0.8, 0.2]]), range(2), range(2))
        >>> by_text.tolist(), by_image.tolist()
        ([1, 2], [1, 1])
    """
    images, texts = np.asarray(images_ND), np.asarray(texts_MD)
    both = (image_patients is None) == (text_patients is None)
    if len(images) != len(image_keys) or len(texts) != len(text_keys) or not both:
        raise MedclipError(
            Reason.WRONG_USE,
            f"{len(images)} images with {len(image_keys)} keys, {len(texts)} texts with {len(text_keys)} keys; "
            "every row needs its key, and patients are given for both sides or for none.",
        )
    of_image, of_text = _codes(image_keys, text_keys)
    whose_image, whose_text = _codes(image_patients or (), text_patients or ())
    by_text = _ranks(texts, images, of_text, of_image, whose_text, whose_image)
    return by_text, _ranks(images, texts, of_image, of_text, whose_image, whose_text)


def recall_figures(
    images_ND: NDArray[np.floating],
    texts_ND: NDArray[np.floating],
    keys: Sequence[Hashable],
    patients: Sequence[Hashable],
    *,
    knows_patients: bool,
    num_resamples: int = NUM_RESAMPLES,
) -> dict[str, dict[str, Any]]:
    """Measure retrieval both ways between images and their texts, as cards have figures.

    Args:
        images_ND: Vectors of images, float [N, D] of unit norm.
        texts_ND: Vector of each image's text, float [N, D] of unit norm.
        keys: Key of each image and its text; equal ones are right answers of each other.
        patients: Patient of each image, or what stands for that.
        knows_patients: Whether `patients` names patients: else none are counted.
        num_resamples: Number of resamples of patients.

    Returns:
        "text_to_image_r1" and so on: value, low and high to four decimals, chance, images and patients.
    """
    chance = chance_of_recall(keys, patients)
    both = retrieval(
        images_ND, texts_ND, keys, keys, image_patients=patients, text_patients=patients, num_resamples=num_resamples
    )
    counts = {"num_images": len(keys), "num_patients": len(set(patients)) if knows_patients else None}
    return {
        f"{way}_r{k}": {
            **{end: round(getattr(one.intervals[k], end), 4) for end in ("value", "low", "high")},
            **{"chance": round(chance[k], 4), **counts},
        }
        for way, one in zip(("text_to_image", "image_to_text"), both, strict=True)
        for k in KS
    }


@dataclass(frozen=True)
class LabelRetrieval:
    """How alike the labels of an image and of the images nearest to it are; means over the images that ask."""

    precision: dict[int, float]
    """K to the share of the K nearest with the very same set of findings."""
    jaccard: dict[int, float]
    """K to the mean overlap of the sets: shared findings over all findings of the two; 1 where both have none."""
    chance: float
    """Precision of an order drawn at random: the share of all that may be found with the same set."""
    num_queries: int
    num_without_others: int = 0
    """Images of which nobody else's is there to be found; they are left out."""


def label_retrieval(
    images_ND: NDArray[np.floating],
    labels_NC: NDArray[Any],
    *,
    patients: Sequence[Hashable] | None = None,
    ks: Sequence[int] = KS,
) -> LabelRetrieval:
    """Measure search by example: each image asks, and all others are ranked by their cosine with it.

    Args:
        images_ND: Vectors of images, float [N, D] of unit norm.
        labels_NC: Findings of each image, bool or 0/1 [N, C].
        patients: Patient of each image. Images of the patient who asks are not to be found: they are alike for other
            reasons than their findings, and would inflate the figures.
        ks: Numbers of answers looked at; where fewer are there, those count.

    Raises:
        MedclipError: WRONG_USE when lengths differ, or nobody else's image is there for any.

    Example:
        >>> import numpy as np
        >>> images = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> label_retrieval(images, np.array([[1, 0], [1, 0], [0, 1]]), ks=(1,)).precision
        {1: 0.6666666666666666}
    """
    images, labels = np.asarray(images_ND), np.asarray(labels_NC).astype(bool)
    if len(images) != len(labels) or labels.ndim != 2 or (patients is not None and len(patients) != len(images)):
        raise MedclipError(
            Reason.WRONG_USE,
            f"{len(images)} images come with labels {list(labels.shape)}; every image needs its own row.",
        )
    whose, _ = _codes(range(len(images)) if patients is None else patients, ())
    of_set, _ = _codes([row.tobytes() for row in labels], ())
    precision, jaccard = (np.zeros((len(ks), len(images))) for _ in range(2))
    chance = np.full(len(images), np.nan)
    most, rows = min(max(ks), len(images)), max(1, min(_BLOCK, _SCORES_AT_ONCE // max(1, len(images))))
    for start in range(0, len(images), rows):
        part = np.arange(start, min(start + rows, len(images)))
        others = whose[part, None] != whose[None]
        apart = np.where(others, -(images[part] @ images.T), np.inf)
        nearest = np.sort(np.argpartition(apart, most - 1, axis=1)[:, :most], axis=1)
        by_cosine = np.argsort(np.take_along_axis(apart, nearest, axis=1), axis=1, kind="stable")
        order = np.take_along_axis(nearest, by_cosine, axis=1)
        same = of_set[order] == of_set[part, None]
        shared = (labels[order] & labels[part, None]).sum(axis=2)
        either = (labels[order] | labels[part, None]).sum(axis=2)
        overlap = np.where(either > 0, shared / np.maximum(either, 1), 1.0)
        num = others.sum(axis=1)
        ranked = np.arange(order.shape[1])
        for n, k in enumerate(ks):
            seen = ranked < np.minimum(k, num)[:, None]
            precision[n, part] = (same & seen).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
            jaccard[n, part] = (overlap * seen).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
        equal = ((of_set[part, None] == of_set[None]) & others).sum(axis=1)
        chance[part] = np.where(num > 0, equal / np.maximum(num, 1), np.nan)
    asks = ~np.isnan(chance)
    if not asks.any():
        raise MedclipError(Reason.WRONG_USE, "all images are of one patient: there is nobody else's to find.")
    return LabelRetrieval(
        precision={k: float(row[asks].mean()) for k, row in zip(ks, precision, strict=True)},
        jaccard={k: float(row[asks].mean()) for k, row in zip(ks, jaccard, strict=True)},
        chance=float(chance[asks].mean()),
        num_queries=int(asks.sum()),
        num_without_others=int((~asks).sum()),
    )


def _codes(first: Sequence[Hashable], second: Sequence[Hashable]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the keys of both sides alike."""
    numbers: dict[Hashable, int] = {}
    a = np.array([numbers.setdefault(key, len(numbers)) for key in first], dtype=np.int64)
    b = np.array([numbers.setdefault(key, len(numbers)) for key in second], dtype=np.int64)
    return a, b


def _ranks(
    queries: NDArray,
    answers: NDArray,
    of_query: NDArray[np.int64],
    of_answer: NDArray[np.int64],
    whose_query: NDArray[np.int64],
    whose_answer: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return the rank of each query's best right answer; 0 where it has none."""
    ranks = []
    for start in range(0, len(queries), _BLOCK):
        part = slice(start, start + _BLOCK)
        scores = queries[part] @ answers.T
        right = of_query[part, None] == of_answer[None]
        best = np.where(right, scores, -np.inf).max(axis=1, initial=-np.inf)
        ahead = scores > best[:, None]
        if len(whose_answer):
            ahead &= whose_query[part, None] != whose_answer[None]
        ranks.append(np.where(right.any(axis=1), 1 + ahead.sum(axis=1), 0))
    return np.concatenate(ranks) if ranks else np.zeros(0, np.int64)


def _summary(
    ranks: NDArray[np.int64], ks: Sequence[int], patients: Sequence[Hashable] | None, draw: tuple[int, int]
) -> Retrieved:
    present_ranks = ranks[ranks > 0]
    if not len(present_ranks):
        raise MedclipError(Reason.WRONG_USE, "no image and text belong together: there is nothing to retrieve.")
    hits_KN = np.stack([present_ranks <= k for k in ks]).astype(np.float64)
    return Retrieved(
        recall={k: float(hits.mean()) for k, hits in zip(ks, hits_KN, strict=True)},
        median_rank=float(np.median(present_ranks)),
        mean_rank=float(present_ranks.mean()),
        mrr=float((1 / present_ranks).mean()),
        num_queries=len(present_ranks),
        num_without_answer=int((ranks == 0).sum()),
        intervals={} if patients is None else _intervals(ks, hits_KN, numbered(patients)[ranks > 0], *draw),
    )


def _intervals(
    ks: Sequence[int], hits_KN: NDArray[np.float64], patients_N: NDArray[np.int64], num_resamples: int, seed: int
) -> dict[int, Estimate]:
    weights_PB = draw_weights(int(patients_N.max()) + 1, num_resamples, seed=seed)
    point_K, drawn_KB = ratios(patients_N, weights_PB, hits_KN, np.ones((1, len(patients_N))))
    cases, patients = float(len(patients_N)), effective_patients(patients_N)
    rows = zip(ks, point_K, drawn_KB, strict=True)
    return {k: interval_of(share(float(v), drawn_B, cases=cases, patients=patients)) for k, v, drawn_B in rows}


def chance_of_recall(keys: Sequence[Hashable], patients: Sequence[Hashable]) -> dict[int, float]:
    """Return how often one of the K first of a shuffled gallery is right, mean over queries, for each K of `KS`.

    A query has as many right answers as there are equal keys, among all but the wrong ones of its own patient.

    Args:
        keys: Key of each image and its text.
        patients: Patient of each image.

    Example:
        >>> chance_of_recall(["a", "b", "c", "d"], range(4))[1]
        0.25
    """
    right, num_of_patient = Counter(keys), Counter(patients)
    pairs = list(zip(patients, keys, strict=True))
    both = Counter(pairs)
    right_N = np.array([right[key] for _, key in pairs], np.float64)
    size_N = np.array([len(pairs) - num_of_patient[patient] + both[patient, key] for patient, key in pairs], np.float64)
    chance, missed_N = {}, np.ones(len(pairs))
    for k in range(1, max(KS) + 1):
        missed_N = missed_N * np.clip((size_N - right_N - k + 1) / np.maximum(size_N - k + 1, 1), 0, 1)
        if k in KS:
            chance[k] = float(1 - missed_N.mean())
    return chance
