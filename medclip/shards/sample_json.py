"""The JSON member of a sample: its caption record and where it came from, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from medclip.sample import Modality
from medclip.text.captions.record import CaptionRecord

TEXTS_BY_ROLE = ("negatives", "long_captions", "tags")
"""Keys of texts that have another role than a caption's."""
_OPTIONAL = ("report", *TEXTS_BY_ROLE)


def to_json(record: CaptionRecord, meta: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> bytes:
    """Write both as one JSON object with sorted keys. A report, texts of other roles than a caption's, and a study in
    `meta`, are there only where known.

    Args:
        record: Record of what is known of the sample.
        meta: Facts on where the sample came from.
        more: Further keys beside `record` and `meta`, such as `volume`.
    """
    record_values = asdict(record)
    for name in _OPTIONAL:
        if record_values[name] in (None, ()):
            del record_values[name]
    value = {"record": record_values, "meta": dict(meta), **(more or {})}
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def from_json(data: bytes) -> tuple[CaptionRecord, dict[str, Any]]:
    """Read what `to_json` wrote. The meta always has a `study`, "" where none is known.

    Raises:
        KeyError, ValueError: The bytes are something else.
    """
    value = json.loads(data)
    stored = value["record"]
    facts: dict[str, Any] = {f.name: stored[f.name] for f in fields(CaptionRecord) if f.name not in _OPTIONAL}
    facts["modality"] = None if facts["modality"] is None else Modality(facts["modality"])
    facts |= {"texts": tuple(facts["texts"]), "report": stored.get("report")}
    facts |= {name: tuple(stored.get(name, ())) for name in TEXTS_BY_ROLE}
    return CaptionRecord(**facts), {"study": "", **value["meta"]}
