"""Samples of WebDataset tars that others wrote: an image with a text or a JSON file beside it.

UniMed packs all captions of an image in one text: `caption MARKER caption MARKER ...`, each caption followed by the
marker of its data set; the chest set with reports goes on with the marker once more and the report (or the word that
says there is none). Reference: UniMed-CLIP, section 3 of its paper and its released shards; unlike its own reader, a
marker counts only where that form puts it, and what is empty or says "no report" is no caption.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medclip.files.tables.table import is_marked
from medclip.sample import Modality, modality_of_name
from medclip.shards.folder import SYNTHETIC
from medclip.shards.sample_json import TEXTS_BY_ROLE, from_json
from medclip.text.captions.record import CaptionRecord

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


FOREIGN = "foreign"
"""Stands for the adapter of such samples: nobody knows how their images were rendered."""


@dataclass(frozen=True)
class ForeignSet:
    """What holds for all samples of a foreign folder; kept in its index."""

    source: str
    license: str
    modality: Modality | None
    """Where a sample's own JSON names none."""

    def to_dict(self) -> dict[str, Any]:
        """Return the form that the index keeps."""
        return {"source": self.source, "license": self.license, "modality": self.modality}

    @staticmethod
    def from_dict(value: Mapping[str, Any]) -> ForeignSet:
        """Read what `to_dict` gave."""
        modality = value.get("modality")
        return ForeignSet(str(value["source"]), str(value["license"]), Modality(modality) if modality else None)


def read_foreign(
    parts: Mapping[str, bytes], of: ForeignSet, row: Mapping[str, Any]
) -> tuple[CaptionRecord, dict[str, Any]]:
    """Make a record of a foreign sample's members.

    The JSON may be one of medclip's own, or have the keys `captions` (a list) or `caption`, `report`, `modality`,
    `negatives`, `long_captions`, `tags` and `absent_tags` (lists), and `synthetic`, of an image that is of no patient;
    a text is one caption or several in UniMed's packed form. Where both speak, the JSON goes first.

    Returns:
        The record, and a meta in the form of medclip's own. A record without texts, report and labels says nothing.

    Raises:
        ValueError, KeyError, TypeError: The members are of no form that is known.
    """
    meta = {
        "key": row["key"],
        "sha256": row["sha256"],
        "patient": row["patient"],
        "study": "",
        "adapter": FOREIGN,
        "preprocessing": "",
        "source": of.source,
        "license": of.license,
        "burned_in": None,
    }
    value = json.loads(parts["json"]) if "json" in parts else {}
    if not isinstance(value, dict):
        raise ValueError("the JSON is no object")
    if "record" in value and "meta" in value:
        record, stored_meta = from_json(parts["json"])
        return record, {**meta, **stored_meta, "key": meta["key"], "source": meta["source"]}
    texts = _texts(value.get("captions", value.get("caption", ())))
    report = value.get("report")
    if not (texts or report) and "txt" in parts:
        packed = read_packed(parts["txt"].decode("utf-8"))
        texts, report = packed.captions[:NUM_DRAWN] if packed.report else packed.choices, packed.report
    by_role: dict[str, Any] = {name: _joined(_texts(value.get(name))) for name in TEXTS_BY_ROLE}
    record = CaptionRecord(
        modality=modality_of_name(str(value.get("modality") or "")) or of.modality,
        texts=_joined(texts),
        report=(str(report).strip() or None) if report else None,
        **by_role,
    )
    if is_marked(str(value.get(SYNTHETIC) or "")):
        meta[SYNTHETIC] = True
    return record, meta


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(text) for text in value or ()]


def _joined(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(text for text in (" ".join(text.split()) for text in texts) if text)


def is_empty_record(record: CaptionRecord) -> bool:
    """Whether nothing but the modality is known, so that there is no caption of the image itself."""
    return not (record.texts or record.report or record.labels or record.view or record.generic)
