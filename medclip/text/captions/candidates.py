"""One caption of several: texts that were written of one image, and with which probability each is drawn.

`medclip pairs rewrite` weighs them by alignment and information ("CLIP with Quality Captions"); a recipe says how often
the raw text stands beside the rewritten ones (HQ-CLIP's p_raw), and how often at most a text that a model wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

RAW = "raw"
"""Kind of the text as it came with the image."""
SYNTHETIC = "agent"
"""Kind of a text that a model wrote."""


@dataclass(frozen=True)
class WeighedCaption:
    """One caption that an image may be trained with."""

    kind: str
    """raw, findings, impression, cleaned or agent."""
    text: str
    weight: float
    """Share among the rewritten captions of the image; of a raw text, 1 where no other has any weight."""

    @property
    def is_raw(self) -> bool:
        """Whether it is the text as it came with the image, of which no false text was made."""
        return self.kind == RAW


def draw_probabilities(candidates: Sequence[WeighedCaption], p_raw: float, p_syn: float) -> NDArray[np.float64]:
    """Compute with which probability each of K captions of an image is drawn.

    Args:
        candidates: Captions with their weights.
        p_raw: Probability of the raw text beside rewritten ones; where none of these has a weight it has all.
        p_syn: Probability above which synthetic captions are not drawn, where there are others. The excess goes
            to the other rewritten captions, else to the raw text if p_raw is above 0.

    Returns:
        float64 [K], sums to 1; all 0 where nothing has a weight and there is no raw text.

    Example:
        >>> texts = [WeighedCaption("raw", "a", 0), WeighedCaption("cleaned", "b", 0.25)]
        >>> draw_probabilities([*texts, WeighedCaption("agent", "c", 0.75)], p_raw=0.2, p_syn=0.5).round(3).tolist()
        [0.2, 0.3, 0.5]
    """
    raw_K = np.array([c.is_raw for c in candidates], bool)
    weight_K = np.where(raw_K, 0.0, [c.weight for c in candidates])
    if not weight_K.any():
        return raw_K / max(1, raw_K.sum())
    share = p_raw if raw_K.any() else 0.0
    p_K = weight_K / weight_K.sum() * (1 - share)
    p_K[raw_K] = share / max(1, raw_K.sum())
    synthetic_K = np.array([c.kind == SYNTHETIC for c in candidates], bool)
    excess = p_K[synthetic_K].sum() - p_syn
    taking_K = ~synthetic_K & ~raw_K & (p_K > 0)
    taking_K = taking_K if taking_K.any() else raw_K & (p_K > 0)
    if excess > 0 and taking_K.any():
        p_K[synthetic_K] *= p_syn / p_K[synthetic_K].sum()
        p_K[taking_K] += excess * p_K[taking_K] / p_K[taking_K].sum()
    return p_K


def draw_candidate(
    candidates: Sequence[WeighedCaption], rng: Generator, *, p_raw: float, p_syn: float
) -> WeighedCaption | None:
    """Draw one caption with one number of `rng`; None where none may be drawn."""
    p_K = draw_probabilities(candidates, p_raw, p_syn)
    numbers = np.flatnonzero(p_K)
    if not len(numbers):
        return None
    ends = np.cumsum(p_K[numbers])
    at = int(np.searchsorted(ends, rng.random() * ends[-1], side="right"))
    return candidates[numbers[min(at, len(numbers) - 1)]]  # a product that is rounded up ends behind the last
