"""The JSON member of a sample: its caption record and where it came from, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from medclip.sample import Modality
from medclip.text.captions import CaptionRecord


def to_json(record: CaptionRecord, meta: Mapping[str, Any]) -> bytes:
    """Write both as one JSON object with sorted keys."""
    said = {
        "modality": record.modality,
        "view": record.view,
        "laterality": record.laterality,
        "age_years": record.age_years,
        "sex": record.sex,
        "labels": record.labels,
        "texts": list(record.texts),
        "generic": record.generic,
    }
    value = {"record": said, "meta": dict(meta)}
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def from_json(data: bytes) -> tuple[CaptionRecord, dict[str, Any]]:
    """Read what `to_json` wrote.

    Raises:
        KeyError, ValueError: The bytes are something else.
    """
    value = json.loads(data)
    said = value["record"]
    modality = said["modality"]
    record = CaptionRecord(
        modality=None if modality is None else Modality(modality),
        view=said["view"],
        laterality=said["laterality"],
        age_years=said["age_years"],
        sex=said["sex"],
        labels=said["labels"],
        texts=tuple(said["texts"]),
        generic=said["generic"],
    )
    return record, value["meta"]
