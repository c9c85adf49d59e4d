"""The packed form of UniMed captions: all captions of an image in one text, joined by the marker of their data set.

The form is `caption MARKER caption MARKER ...`, each caption followed by the marker; the chest set with reports goes on
with the marker once more and the report (or the word that says there is none). Reference: UniMed-CLIP, section 3 of its
paper and its released shards; unlike its own reader, a marker counts only where that form puts it, and what is empty or
says "no report" is no caption.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

NUM_DRAWN = 10
"""Captions after the tenth are kept and not drawn."""
_NOTHING = ("noreportpresent", "nothingpresent")
_LISTS = ("radimagenet", "chexpert", "chestxray8", "mimiccxr", "openi", "all_retina_merged", "dr")
_NUM_DRAWN_OF = {"openi": 1, "dr": 15}
"""The first caption of `openi` is the radiologist's own, the others are paraphrases of it."""
_WITH_REPORT = "mimiccxr"
_WITH_MENTION = "medicat"
_IMAGES = "png|jpe?g|tiff?|dcm|bmp|gif"


@dataclass(frozen=True)
class PackedCaptions:
    """What a packed text holds."""

    captions: tuple[str, ...]
    """In the order of the text; none is empty."""
    report: str | None = None
    source: str = ""
    """The data set that the marker names; empty for a text without a marker."""
    marker: str = ""

    @property
    def choices(self) -> tuple[str, ...]:
        """What UniMed-CLIP draws from: the report where there is one, else the first captions."""
        if self.report is not None:
            return (self.report,)
        return self.captions[: _NUM_DRAWN_OF.get(self.source, NUM_DRAWN)]


def read_packed(text: str) -> PackedCaptions:
    """Take a packed text apart.

    A marker is one only at the end of the text, or (with a report or a mention behind it) after a caption; inside a
    caption, for instance in a file name that it quotes, it is text.

    Args:
        text: One text of a sample, e.g. its `txt` member.

    Returns:
        Captions, report and source; a text in no packed form is one caption of no source.

    Example:
        >>> read_packed("One view._openi_The same in other words._openi_").captions
        ('One view.', 'The same in other words.')
        >>> read_packed("Photograph scan_dr_01 of the fundus.").source
        ''
    """
    stripped = text.strip()
    twice = f"_{_WITH_REPORT}_" * 2
    head, separator, tail = stripped.partition(twice)
    if separator and head:
        return _packed(head, _WITH_REPORT, tail)
    for source in _LISTS:
        if stripped.endswith(f"_{source}_"):
            return _packed(stripped, source, "")
    head, separator, tail = stripped.rpartition(f"_{_WITH_MENTION}_")
    if separator and head and tail.strip() in ("", *_NOTHING):
        return _packed(head, _WITH_MENTION, "")
    return PackedCaptions(_told([stripped]))


def _packed(captions: str, source: str, report: str) -> PackedCaptions:
    marker = f"_{source}_"
    sentences = _told([report])
    pieces = re.split(_separator(marker), captions)
    return PackedCaptions(_told(pieces), sentences[0] if sentences else None, source, marker)


def _separator(marker: str) -> str:
    """Match a marker between captions, and not one in a file name: "scan_dr_01", "left_dr_eye.png"."""
    return rf"{marker}(?![\w-]*\.(?:{_IMAGES})\b)(?:(?<=[.!?;\"')\s]{marker})|(?!\d))"


def _told(pieces: Sequence[str]) -> tuple[str, ...]:
    return tuple(p for piece in pieces if (p := piece.strip()) and p not in _NOTHING)
