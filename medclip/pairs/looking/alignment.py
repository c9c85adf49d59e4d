"""How well a pack puts texts at their images: cosines of pairs, held against those of texts that were shuffled.

The chance level of a cosine is nothing that one could know: towers put all images of a modality and all of their texts
into narrow cones. So each image is also held against the text of another patient of its modality, and the AUROC of
matched against shuffled cosines says how often a pair's own text is nearer than a shuffled one: 0.5 is chance.
Intervals are Obuchowski's, by patient of the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medclip.errors import Reason
from medclip.pairs.selection.clip_score import score_pairs
from medclip.statistics.metrics.delong import auroc_variance, interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from medclip.models.model import Model
    from medclip.pairs.selection.pack_vectors import PackVectors
    from medclip.progress import Progress

_TRIES = 20
_BINS, _FEW_BINS, _FEW = 48, 20, 1000
"""Bins of a drawing, and those where there are few pairs."""
_QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class ModalityAlignment:
    """Matched and shuffled cosines of one modality."""

    modality: str
    pairs: int
    """Pairs that have a cosine."""
    patients: int
    matched: tuple[float, float, float]
    """Cosines below which 5, 50 and 95 % lie."""
    shuffled: tuple[float, float, float] | None
    """Of texts of other patients; None where there is no other text."""
    auroc: float | None
    low: float | None
    high: float | None
    edges: tuple[float, ...]
    """Of the bins that are counted."""
    matched_counts: tuple[int, ...]
    shuffled_counts: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Alignment:
    """What a pack makes of N pairs."""

    pack: dict[str, str]
    cosine_N: NDArray[np.float64]
    """NaN where there is no image or no text."""
    shuffled_N: NDArray[np.float64]
    why_N: NDArray[np.object_]
    """Reason for which there is no cosine: why there is no vector of the image (`PackVectors`), or `empty_caption`; ""
    where there is one."""
    modalities: tuple[ModalityAlignment, ...]


def measure_alignment(
    model: Model,
    pack: dict[str, str],
    vectors: PackVectors,
    texts: Sequence[str],
    modalities: Sequence[str],
    patients_N: NDArray[np.int64],
    hash_N: NDArray[np.int64],
    progress: Progress,
    rng: np.random.Generator,
) -> Alignment:
    """Compare images with their own texts and with those of others.

    Args:
        model: Pack with words.
        pack: Facts by which the pack is named.
        vectors: Vectors of the N images.
        texts: N texts, whose captions are a line each.
        modalities: Modality of each.
        patients_N: Patient of each, as a number; of its own where none is known.
        hash_N: Numbers that are equal for equal texts.
        progress: Progress bar of the texts.
        rng: Source of the shuffle.
    """
    vectors_ND = vectors.vectors_MD
    cosine_N = score_pairs(model, vectors_ND, texts, progress)
    partner_N = np.full(len(texts), -1, np.int64)
    names = np.array(modalities, object)
    scored_N = np.isfinite(cosine_N)
    for modality in sorted(set(modalities)):
        rows = np.flatnonzero(scored_N & (names == modality))
        partner_N[rows] = _shuffle(rows, patients_N, hash_N, rng)
    others = [texts[other] if other >= 0 else "" for other in partner_N.tolist()]
    shuffled_N = score_pairs(model, vectors_ND, others, progress)
    parts = [
        _of_modality(str(modality), cosine_N[rows], shuffled_N[rows], patients_N[rows])
        for modality in sorted(set(modalities))
        if len(rows := np.flatnonzero(scored_N & (names == modality)))
    ]
    why_N = np.where((vectors.why_M == "") & np.isnan(cosine_N), str(Reason.EMPTY_CAPTION), vectors.why_M).astype(
        object
    )
    return Alignment(pack, cosine_N, shuffled_N, why_N, tuple(sorted(parts, key=lambda one: -one.pairs)))


def _shuffle(
    rows: NDArray[np.int64], patients_N: NDArray[np.int64], hash_N: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw for each row one of another patient and with another text; -1 where none was met."""
    partner = rng.permutation(rows)

    def is_own() -> NDArray[np.bool_]:
        return (patients_N[partner] == patients_N[rows]) | (hash_N[partner] == hash_N[rows])

    for _ in range(_TRIES):
        again = np.flatnonzero(is_own())
        if not len(again):
            break
        partner[again] = rng.choice(rows, len(again))
    return np.where(is_own(), -1, partner)


def _of_modality(
    modality: str, matched: NDArray[np.float64], shuffled: NDArray[np.float64], patients: NDArray[np.int64]
) -> ModalityAlignment:
    has_other = np.isfinite(shuffled)
    both = np.concatenate([matched, shuffled[has_other]])
    edges = np.histogram_bin_edges(both, _BINS if len(matched) > _FEW else _FEW_BINS)
    auroc = low = high = None
    if has_other.any():
        # Matched ones of all pairs are held against the shuffled ones: a pair without a partner says something, too.
        truth = np.concatenate([np.ones(len(matched)), np.zeros(int(has_other.sum()))])
        area = auroc_variance(truth, both, patients_N=np.concatenate([patients, patients[has_other]]))
        auroc = float(area.auroc_K[0])
        ends = interval(auroc, float(area.covariance_KK[0, 0]))
        low, high = (end if np.isfinite(end) else None for end in ends)
    quantiles = [tuple(np.quantile(x, _QUANTILES).tolist()) if len(x) else None for x in (matched, shuffled[has_other])]
    assert quantiles[0] is not None
    counts = [tuple(np.histogram(x, edges)[0].tolist()) for x in (matched, shuffled[has_other])]
    num_patients = len(np.unique(patients))
    return ModalityAlignment(
        modality,
        len(matched),
        num_patients,
        quantiles[0],
        quantiles[1],
        auroc,
        low,
        high,
        tuple(edges.tolist()),
        *counts,
    )
