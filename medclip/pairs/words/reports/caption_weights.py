"""How often each caption of an image is drawn: what it has to do with the image, and how much it says.

Scores and the weight follow "CLIP with Quality Captions" as our specification states them (no code of the paper is
public): w ∝ 1[a ≥ τ] · exp(a / T) · (0.5 + 0.5 i), where `a` is the alignment, standardised per modality, and `i` the
information. Where no caption passes, the raw text keeps the weight 1: rare findings are not dropped. What part raw and
synthetic captions have of all draws is said by a recipe (`medclip.text.captions.candidates`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medclip.pairs.words.reports.report_cleaning import entities

Floats = NDArray[np.float64]
CONFLICT = "polarity_conflict"
"""Reason of a caption that affirms what its report or a label denies, or the reverse: it never has a weight."""
ENOUGH_ENTITIES = 4
GRAM_WORDS = 8
MOST_DOCUMENTS = 0.01
"""Share of documents from which on a run of words is boilerplate."""
NORMAL_WITHIN = 0.05
"""How far the share of normal images with a rewritten text may lie below that of all."""


def caption_weights(
    alignment_K: Floats, information_K: Floats, *, threshold: float = -np.inf, temperature: float = 0.1
) -> Floats:
    """Weigh the captions of one image.

    Args:
        alignment_K: Alignment of each caption, standardised per modality.
        information_K: Information of each, 0 to 1.
        threshold: Alignment below which a caption has no weight.
        temperature: Temperature of the alignment.

    Returns:
        Weights that sum to 1; all 0 where no caption passes.

    Example:
        >>> caption_weights(np.array([1.0, 0.0]), np.array([1.0, 0.0]), threshold=-1, temperature=1).round(6).tolist()
        [0.844638, 0.155362]
    """
    passes_K = alignment_K >= threshold
    if not passes_K.any():
        return np.zeros(len(alignment_K))
    exponents = np.where(passes_K, alignment_K / temperature, -np.inf)
    weight_K = np.exp(exponents - exponents.max()) * (0.5 + 0.5 * information_K)
    return weight_K / weight_K.sum()


def standardised(cosine_N: Floats, modalities: Sequence[str]) -> Floats:
    """Standardise scores within each modality; NaN stays, and where all are equal each is 0."""
    scores = np.full(len(cosine_N), np.nan)
    names = np.array(modalities, object)
    for name in sorted(set(modalities)):
        rows = np.flatnonzero((names == name) & ~np.isnan(cosine_N))
        spread = cosine_N[rows].std() if len(rows) else 0.0
        scores[rows] = (cosine_N[rows] - cosine_N[rows].mean()) / spread if spread > 1e-12 else 0.0
    return scores


def thresholds(score_N: Floats, modalities: Sequence[str], percentile: float) -> Mapping[str, float]:
    """Return the percentile of the scores of each modality; minus infinity where there is no score."""
    names = np.array(modalities, object)
    values: dict[str, float] = {}
    for name in sorted(set(modalities)):
        scores = score_N[(names == name) & ~np.isnan(score_N)]
        values[name] = float(np.percentile(scores, percentile)) if len(scores) else -np.inf
    return values


class Boilerplate:
    """Runs of eight words that more than one document in a hundred has.

    Args:
        documents: Text of each document.
    """

    def __init__(self, documents: Sequence[str]) -> None:
        counts = Counter(gram for document in documents for gram in set(_grams(document)))
        least = max(2, MOST_DOCUMENTS * len(documents))
        self._grams = frozenset(gram for gram, n in counts.items() if n > least)

    def share(self, text: str) -> float:
        """Return the share of a text's runs of eight words that are boilerplate; 0 for a shorter text."""
        grams = list(_grams(text))
        return sum(gram in self._grams for gram in grams) / len(grams) if grams else 0.0

    def information(self, text: str, modality: str = "") -> float:
        """Return how much a text says, 0 to 1: its findings up to four, times the share that is no boilerplate."""
        return min(1.0, len(entities(text, modality)) / ENOUGH_ENTITIES) * (1 - self.share(text))


def _grams(text: str) -> Iterator[tuple[str, ...]]:
    words = text.lower().split()
    return (tuple(words[i : i + GRAM_WORDS]) for i in range(len(words) - GRAM_WORDS + 1))


def polarity_fault(candidate: str, report: str, modality: str = "", labels: Mapping[str, bool] | None = None) -> str:
    """Return `polarity_conflict` where a caption affirms what the report denies, or the reverse; "" otherwise.

    Args:
        candidate: The caption.
        report: Text that it was made of.
        modality: Modality of the image, or "".
        labels: Findings that are known to be there (True) or absent, beside those of the report.

    Example:
        >>> polarity_fault("Large pneumothorax.", "No pneumothorax.", "xray")
        'polarity_conflict'
    """
    stated = {**entities(report, modality), **(labels or {})}
    answers = entities(candidate, modality).items()
    return CONFLICT if any(stated.get(name, value) != value for name, value in answers) else ""


def restored_normals(rewritten_N: NDArray[np.bool_], normal_N: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Choose the normal rows that get their rewritten text back, so that normal images are not what a filter drops.

    Args:
        rewritten_N: Rows with a rewritten text that passed.
        normal_N: Rows whose text says that nothing is wrong.

    Returns:
        Numbers of rows, the fewest in their order after which the normal share among rewritten rows is at most
        `NORMAL_WITHIN` below that among all.
    """
    target = float(normal_N.mean()) - NORMAL_WITHIN if len(normal_N) else 0.0
    rows, num, num_normal = [], int(rewritten_N.sum()), int((rewritten_N & normal_N).sum())
    for row in np.flatnonzero(normal_N & ~rewritten_N):
        if not num or num_normal >= target * num:
            break
        rows.append(row)
        num, num_normal = num + 1, num_normal + 1
    return np.array(rows, np.int64)
