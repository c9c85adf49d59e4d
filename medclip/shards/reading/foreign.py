"""Samples of WebDataset tars that others wrote: an image with a text or a JSON file beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medclip.files.tables.modality_names import modality_of_name
from medclip.sample import Modality
from medclip.shards.sample_json import TEXTS_BY_ROLE, from_json
from medclip.text.captions.record import CaptionRecord
from medclip.text.captions.unimed_format import NUM_DRAWN, read_packed

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
    parts: Mapping[str, bytes], of: ForeignSet, known: Mapping[str, Any]
) -> tuple[CaptionRecord, dict[str, Any]]:
    """Make a record of a foreign sample's members.

    The JSON may be one of medclip's own, or have the keys `captions` (a list) or `caption`, `report`, `modality`,
    `negatives`, `long_captions` and `tags` (lists); a text is one caption or several in UniMed's packed form. Where
    both speak, the JSON goes first.

    Args:
        parts: Extension to bytes.
        of: Facts that hold for the whole set.
        known: The sample's row of samples.parquet.

    Returns:
        The record, and a meta in the form of medclip's own. A record without texts, report and labels says nothing.

    Raises:
        ValueError, KeyError, TypeError: The members are of no form that is known.
    """
    meta = {
        "key": known["key"],
        "sha256": known["sha256"],
        "patient": known["patient"],
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
        record, own = from_json(parts["json"])
        return record, {**meta, **own, "key": meta["key"], "source": meta["source"]}
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
    return record, meta


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(text) for text in value or ()]


def _joined(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(text for text in (" ".join(text.split()) for text in texts) if text)


def is_empty_record(record: CaptionRecord) -> bool:
    """Whether nothing but the modality is known, so that there is no caption of the image itself."""
    return not (record.texts or record.report or record.labels or record.view or record.generic)
