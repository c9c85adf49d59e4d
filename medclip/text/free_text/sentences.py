"""Free text that came with an image: quote it as it stands, or a sentence or two that its labels do not contradict.

What no image shows is set aside: other examinations, technique, talk, people, dates. Word lists, no model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from medclip.text.free_text.mentions import contradicts

if TYPE_CHECKING:
    from numpy.random import Generator

_MONTHS = "january|february|march|april|june|july|august|september|october|november|december"
_STUDY = r"(?:exam\w*|stud(?:y|ies)|films?|radiographs?|images?|imaging|scans?|x-?rays?|views?|mammogra\w+|ct|mri?)"
_TAKEN = r"(?:obtained|performed|submitted|acquired|provided|reviewed|taken|presented|available)"
_VIEW = r"(?:frontal|lateral|ap|pa|oblique|decubitus|craniocaudal|cc|mlo|portable)"

KINDS: Mapping[str, re.Pattern[str]] = {
    "placeholder": re.compile(
        r"x{3,}|_{2,}|\[\*\*|\*\*\]|<[a-z_ ]+>|\[(?:redacted|removed|name|date|age|location|hospital|doctor)[^\]]*\]"
        r"|\b(?:redacted|deidentified|de-identified)\b"
    ),
    "comparison": re.compile(
        r"\b(?:compar(?:ed|ison|isons|ing)|interval|unchanged|stable|stably|again|since|previous(?:ly)?"
        r"|priors?(?! granul)|now|newly|new|no (?:significant |appreciable )?change|persist\w*|remain(?:s|ed|ing)?"
        r"|improv\w+|worsen\w*|progress(?:ed|ion|ing)?|resolv\w+|resolution|clearing of|(?:in|de)crease in"
        r"|(?:has|have) (?:increased|decreased|enlarged|cleared)|(?:in|de)creased (?:from|since)"
        r"|(?:slightly|mildly|markedly) (?:more|less)|follow(?:ing)?[- ]?up|earlier|yesterday|today|formerly)\b"
    ),
    "technique": re.compile(
        rf"\b{_STUDY}\b[^.]{{0,60}}\b{_TAKEN}\b"
        rf"|\b{_VIEW}(?:,? (?:and )?{_VIEW})*(?: chest)? (?:projections?|{_STUDY})\b"
        r"|\b(?:technique|contrast (?:was|material|medium)|field of view|two views?|single view"
        r"|\d+ (?:views?|images?))\b"
    ),
    "talk": re.compile(
        r"\b(?:discussed|telephon\w*|phoned?|notified|communicated|dictated|transcribed|signed|attending|resident"
        r"|reported (?:to|by)|recommend\w*|advis\w+|suggest(?:ed)? (?:follow|repeat|further)|correlat\w+|please"
        r"|clinically|further (?:evaluation|imaging|work-?up|assessment)"
        r"|consider (?:a |an )?(?:ct|mri?|dedicated|repeat|biopsy)|would be (?:helpful|useful)"
        r"|if (?:clinically|there is)|history|symptoms?"
        r"|(?:as|described|noted|mentioned) (?:described|noted|above|below|mentioned)|see (?:above|below))\b"
    ),
    "person": re.compile(
        r"\b(?:dr|mr|mrs|ms|md|prof)\b|\bpatient'?s?\b|\b\d+[- ]?(?:year|yr|month|week|day)s?[- ]?old\b|\b\d*\s?y/?o\b"
        r"|\b(?:man|woman|male|female|boy|girl|gentleman|lady|he|she|his|her)\b"
    ),
    "date": re.compile(
        rf"\b\d{{1,2}}/\d{{1,2}}\b|\b\d{{1,4}}-\d{{1,2}}-\d{{1,4}}\b|\b(?:19|20)\d\d\b|\b(?:{_MONTHS})\b|\bmay \d"
        r"|\b\d{1,2}:\d\d\b|\b\d+ hours\b|\b\d+ ?[ap]\.?m\b"
    ),
}
"""By kind, on lower-case text. "Now", "new" and "stable" speak of an earlier image as much as "compared" does."""


@lru_cache(maxsize=16384)
def aside(sentence: str) -> str | None:
    """Return what kind of thing a sentence holds that its image cannot show.

    Args:
        sentence: One sentence of a report.

    Returns:
        The first kind of `KINDS` that is found, or None for a sentence that describes the image.

    Example:
        >>> aside("The effusion is unchanged."), aside("There is a small effusion.")
        ('comparison', None)
    """
    lowered = sentence.lower()
    return next((kind for kind, pattern in KINDS.items() if pattern.search(lowered)), None)


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
