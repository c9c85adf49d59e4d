"""Rank vectors by a question: what search in a folder of embeddings and in one of slides share.

Words alone: score = cos(f, w) - cos(f, n), where w is the normalised mean of the phrasings and n that of what is not
looked for. An example alone: score = cos(f, e). Both: the mean of the two, each as standard deviations above its mean
over all that is looked at, since cosines between images lie higher and spread otherwise than those between images and
words. In each case the score is linear in f, so that one pass over the vectors finds the best.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from medclip.retrieval.approximate import ApproximateIndex
from medclip.retrieval.question import QuestionVectors
from medclip.retrieval.result import finite
from medclip.retrieval.top_rows import TopRows, exact_scores, top_rows
from medclip.retrieval.vector_file import VectorFile

_ROUNDING = 1e-6
"""Scores that spread less are equal but for the rounding of float32."""


@dataclass(frozen=True, eq=False)
class RankedVectors:
    """The best vectors, and what their scores are made of; K of them."""

    places_K: NDArray[np.int64]
    """Which vectors, the best first."""
    scores_K: NDArray[np.float64]
    words_K: list[float | None]
    """Cosine with the mean of the phrasings."""
    spread_K: list[float | None]
    """Standard deviation of the cosine over the phrasings."""
    without_K: list[float | None]
    like_K: list[float | None]
    mean: float
    """Of the scores of all that was looked at."""
    sd: float
    num_searched: int

    def facts(self, n: int) -> dict[str, float | None]:
        """Return the fields of `Hit` that are made of scores, of the n-th best from 0."""
        score = float(self.scores_K[n])
        return {
            "score": round(score, 6),
            "z": finite((score - self.mean) / self.sd) if self.sd > _ROUNDING else None,
            "words": self.words_K[n],
            "spread": self.spread_K[n],
            "without": self.without_K[n],
            "like": self.like_K[n],
        }


def rank_vectors(
    vectors: VectorFile, asked: QuestionVectors, wanted: NDArray[np.bool_], top: int, index: ApproximateIndex | None
) -> RankedVectors:
    """Find the vectors that fit a question best.

    Args:
        vectors: File of N vectors.
        asked: The question.
        wanted: Whether each vector is looked at, bool [N]; at least one.
        top: Most hits, K.
        index: Index for an approximate search; an exact one where None.
    """
    find = partial(top_rows, vectors) if index is None else partial(index.top_rows, vectors)
    query, offset = _query(find, asked, wanted)
    best = find(query[None], top, wanted=wanted)
    rows = vectors.rows(best.rows[0])
    spread: list[float | None] = [None] * len(rows)
    if asked.phrasings is not None and len(asked.phrasings) > 1:
        each = rows.astype(np.float64) @ asked.phrasings.astype(np.float64).T
        spread = [finite(value) for value in each.std(axis=1, ddof=1)]
    words, without, like = (_cosines(rows, vector) for vector in (asked.words, asked.without, asked.like))
    mean, sd = float(best.mean[0]) - offset, float(best.sd[0])
    return RankedVectors(best.rows[0], best.scores[0] - offset, words, spread, without, like, mean, sd, best.num_rows)


def _query(
    find: Callable[..., TopRows], asked: QuestionVectors, wanted: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], float]:
    """Return the vector whose dot product with f, less the second value, is the score of f."""
    text, like = asked.text, asked.like
    if text is None or like is None:
        query = text if like is None else like
        assert query is not None
        return query, 0.0
    each = find(np.stack([text, like]), 1, wanted=wanted)
    sd = np.where(each.sd > 0, each.sd, 1.0)
    query = 0.5 * (text.astype(np.float64) / sd[0] + like.astype(np.float64) / sd[1])
    return query.astype(np.float32), float(0.5 * (each.mean[0] / sd[0] + each.mean[1] / sd[1]))


def _cosines(vectors: NDArray[np.float32], query: NDArray[np.float32] | None) -> list[float | None]:
    if query is None:
        return [None] * len(vectors)
    return [finite(value) for value in exact_scores(vectors, query[None])]
