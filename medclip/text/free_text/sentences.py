"""Free text that came with an image: quote it as it stands, or a sentence or two that its labels do not contradict."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from medclip.text.free_text.mentions import contradicts

if TYPE_CHECKING:
    from numpy.random import Generator

Native = Literal["sentences", "whole", "shuffled"]
"""How texts and reports are quoted: sentences that fit the labels, one whole text unchanged, or one whole text with its
sentences in a new order each time."""
MAX_WORDS = 60
_MIN_WORDS = 3
_END = re.compile(r"(?<=[.!?;])(?<!\b[A-Za-z]\.)(?<!\bDr\.)(?<!\bvs\.)(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bapprox\.)\s+|\n+")


@lru_cache(maxsize=8192)
def sentences(text: str, min_words: int = _MIN_WORDS) -> tuple[str, ...]:
    """Split text at sentence ends and line breaks; pieces under three words (or `min_words`) are dropped.

    Example:
        >>> sentences("Clear lungs on both sides. pH 7.4 was measured.")
        ('Clear lungs on both sides.', 'pH 7.4 was measured.')
    """
    pieces = (" ".join(p.split()) for p in _END.split(text))
    return tuple(p if p[-1] in ".!?;" else f"{p}." for p in pieces if len(p.split()) >= min_words)


def shuffled(text: str, rng: Generator) -> str:
    """Shuffle the sentences of a text.

    Mammo-CLIP's augmentation of reports, whose own code never uses the new order. Only for texts whose sentences can
    stand anywhere; that of a report of findings can, "It is new." cannot.

    Example:
        >>> import numpy as np
        >>> shuffled("A mass. No skin thickening. BI-RADS 4.", np.random.default_rng(0))
        'BI-RADS 4. A mass. No skin thickening.'
    """
    pieces = sentences(text, min_words=1)
    return " ".join(pieces[int(i)] for i in rng.permutation(len(pieces))) or text


def draw_native(texts: tuple[str, ...], labels: Mapping[str, str | Mapping[str, int]], rng: Generator) -> str | None:
    """Quote one sentence, or two that follow each other, from one of the texts.

    Args:
        texts: Free texts of one image.
        labels: Labels of the image; sentences that say otherwise are never quoted.
        rng: Source of chance.

    Returns:
        At most 60 words, or None when no sentence is fit to be quoted.
    """
    fit = [[s for s in sentences(t) if not contradicts(s, labels)] for t in texts]
    fit = [s for s in fit if s]
    if not fit:
        return None
    chosen = fit[int(rng.integers(len(fit)))]
    start = int(rng.integers(len(chosen)))
    count = 1 + int(rng.random() < 0.5)
    return " ".join(" ".join(chosen[start : start + count]).split()[:MAX_WORDS])


def draw_whole(texts: tuple[str, ...], rng: Generator) -> str | None:
    """Quote one of the texts just as it is, each as often as the others; None where there is none.

    Nothing is left out or added, whatever the labels say: for texts that were written to be captions. Follows the
    caption choice of UniMed-CLIP.
    """
    quotable = [t for t in texts if t.strip()]
    return quotable[int(rng.integers(len(quotable)))] if quotable else None
