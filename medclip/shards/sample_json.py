"""The JSON member of a sample: its caption record and where it came from, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from medclip.sample import Modality
from medclip.text.captions.record import CaptionRecord


def to_json(record: CaptionRecord, meta: Mapping[str, Any]) -> bytes:
    """Write both as one JSON object with sorted keys. A report, and a study in `meta`, are there only where known."""
    record_values: dict[str, Any] = {
        "modality": record.modality,
        "view": record.view,
        "laterality": record.laterality,
        "age_years": record.age_years,
        "sex": record.sex,
        "labels": record.labels,
        "texts": list(record.texts),
        "generic": record.generic,
    }
    if record.report is not None:
        record_values["report"] = record.report
    value = {"record": record_values, "meta": dict(meta)}
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def from_json(data: bytes) -> tuple[CaptionRecord, dict[str, Any]]:
    """Read what `to_json` wrote. The meta always has a `study`, "" where none is known.

    Raises:
        KeyError, ValueError: The bytes are something else.
    """
    value = json.loads(data)
    record_values = value["record"]
    modality = record_values["modality"]
    record = CaptionRecord(
        modality=None if modality is None else Modality(modality),
        view=record_values["view"],
        laterality=record_values["laterality"],
        age_years=record_values["age_years"],
        sex=record_values["sex"],
        labels=record_values["labels"],
        texts=tuple(record_values["texts"]),
        report=record_values.get("report"),
        generic=record_values["generic"],
    )
    return record, {"study": "", **value["meta"]}
