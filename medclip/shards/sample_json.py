"""The JSON member of a sample: its caption record and where it came from, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from medclip.sample import Modality
from medclip.text.captions.record import CaptionRecord


def to_json(record: CaptionRecord, meta: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> bytes:
    """Write both as one JSON object with sorted keys. A report, and a study in `meta`, are there only where known.

    Args:
        record: Record of what is known of the sample.
        meta: Facts on where the sample came from.
        more: Further keys beside `record` and `meta`, such as `volume`.
    """
    record_values = asdict(record)
    if record.report is None:
        del record_values["report"]
    value = {"record": record_values, "meta": dict(meta), **(more or {})}
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def from_json(data: bytes) -> tuple[CaptionRecord, dict[str, Any]]:
    """Read what `to_json` wrote. The meta always has a `study`, "" where none is known.

    Raises:
        KeyError, ValueError: The bytes are something else.
    """
    value = json.loads(data)
    known: dict[str, Any] = {f.name: value["record"][f.name] for f in fields(CaptionRecord) if f.name != "report"}
    known["modality"] = None if known["modality"] is None else Modality(known["modality"])
    record = CaptionRecord(**known | {"texts": tuple(known["texts"]), "report": value["record"].get("report")})
    return record, {"study": "", **value["meta"]}
