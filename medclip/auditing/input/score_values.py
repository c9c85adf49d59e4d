"""Scores checked: probabilities in 0 to 1, logits turned into them, blanks and constants counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from medclip.errors import MedclipError, Reason
from medclip.wording import count

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SLACK = 1e-6
"""What a probability may be off by rounding; such ones are set to 0 or 1."""


def checked_scores(
    score_N: NDArray[np.float64], name: str, kind: str, where: str
) -> tuple[NDArray[np.float64], list[str]]:
    """Check the scores of one label.

    Args:
        score_N: As the table has them; NaN where a row has none.
        name: Of the label.
        kind: "probabilities", "logits" (of one class against the rest) or "any".
        where: The table, for messages.

    Returns:
        Probabilities, or the scores as they are where `kind` is "any"; and notes.

    Raises:
        MedclipError: TABLE_INVALID for infinite scores, for probabilities outside 0 to 1, and where no row has a score.
    """
    known_N = ~np.isnan(score_N)
    if not known_N.any():
        raise MedclipError(Reason.TABLE_INVALID, f"no row has a score of {name!r}.", where=where)
    infinite = int(np.isinf(score_N).sum())
    if infinite:
        raise MedclipError(Reason.TABLE_INVALID, f"{count(infinite, 'score')} of {name!r} are infinite.", where=where)
    if kind == "logits":
        score_N = expit(score_N)
    if kind == "probabilities":
        low, high = int((score_N < -_SLACK).sum()), int((score_N > 1 + _SLACK).sum())
        if low or high:
            raise MedclipError(
                Reason.TABLE_INVALID,
                f"scores of {name!r} are no probabilities: {low:,} are below 0 and {high:,} above 1, of "
                f"{int(known_N.sum()):,}.",
                where=where,
                hint=_advice(score_N[known_N]),
            )
        score_N = np.clip(score_N, 0.0, 1.0)
    notes = []
    if not known_N.all():
        notes.append(f"{name}: {count(int((~known_N).sum()), 'row')} without a score, which do not count for it.")
    first = score_N[known_N][0]
    if int(known_N.sum()) > 1 and bool((score_N[known_N] == first).all()):
        notes.append(
            f"{name}: CAUTION: all {int(known_N.sum()):,} scores are equal ({first:.4g}); they tell nobody apart."
        )
    return score_N, notes


def _advice(score_N: NDArray[np.float64]) -> str:
    if score_N.min() >= 0 and score_N.max() <= 100 and score_N.max() > 10:
        return (
            "Are they per cent? Divide them by 100. Else say --scores-are logits, or --scores-are any for ranks only."
        )
    return "Say --scores-are logits, or --scores-are any where higher only means more likely."
