"""What texts say that no image shows: other examinations, technique, talk, people, dates. Word lists, no model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

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
