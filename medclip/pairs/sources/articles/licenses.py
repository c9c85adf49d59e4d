"""Name a licence by what an article or a list states of it, and tell commercial from non-commercial ones."""

from __future__ import annotations

import re

LICENSE_CLASSES = ("commercial", "non-commercial", "other")
"""As PMC divides its open-access subset."""
_ADDRESS = re.compile(r"creativecommons\.org/licen[sc]es/([a-z-]+)", re.IGNORECASE)
_ZERO = re.compile(r"creativecommons\.org/publicdomain/zero|\bCC[ -]?0\b|\bCC[ -]?ZERO\b", re.IGNORECASE)
_SHORT = re.compile(r"\bCC[ -]BY((?:[ -](?:NC|ND|SA))*)\b", re.IGNORECASE)
_WORDS = re.compile(r"creative commons[\s,]*(?:\w+\s+){0,2}?attribution", re.IGNORECASE)
_NOT_COMMERCIAL = re.compile(r"non[\s-]?commercial", re.IGNORECASE)


def license_of(stated: str) -> str:
    """Name a licence by what is stated of it: an address, a short name, or a sentence.

    Returns:
        "CC0", "CC BY" with NC, SA and ND as they follow, or the first 80 letters of a licence of any other kind; ""
        where none is stated.

    Example:
        >>> license_of("https://creativecommons.org/licenses/by-nc/4.0/"), license_of("NO-CC CODE")
        ('CC BY-NC', 'NO-CC CODE')
    """
    if match := _ADDRESS.search(stated):
        return f"CC {match[1].strip('-').upper()}"
    if match := _SHORT.search(stated):
        return f"CC BY{match[1].replace(' ', '-').upper()}"
    if _ZERO.search(stated):
        return "CC0"
    if _WORDS.search(stated):
        return "CC BY-NC" if _NOT_COMMERCIAL.search(stated) else "CC BY"
    return " ".join(stated.split())[:80]


def class_of_license(name: str) -> str:
    """Return the class of a licence that `license_of` named; "other" where none is stated.

    Example:
        >>> [class_of_license(name) for name in ("CC0", "CC BY-ND", "CC BY-NC-SA", "")]
        ['commercial', 'commercial', 'non-commercial', 'other']
    """
    parts = set(re.split(r"[ -]", name))
    if name == "CC0" or ("CC" in parts and "BY" in parts and "NC" not in parts):
        return "commercial"
    return "non-commercial" if {"CC", "BY", "NC"} <= parts else "other"
