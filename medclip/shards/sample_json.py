"""The JSON member of a sample: its caption record, where it came from, and its views (mammograms, in hanging order)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from medclip.sample import Modality, ViewType
from medclip.text.captions.candidates import WeighedCaption
from medclip.text.captions.record import CaptionRecord

TEXTS_BY_ROLE = ("negatives", "long_captions", "tags", "absent_tags", "edit_pairs")
"""Keys of texts that have another role than a caption's."""
_OPTIONAL = ("report", *TEXTS_BY_ROLE, "candidates", "regions")


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
    try:
        facts["candidates"] = tuple(WeighedCaption(**candidate) for candidate in stored.get("candidates", ()))
        stored_regions = stored.get("regions", ())
        facts["regions"] = tuple((float(x0), float(y0), float(x1), float(y1)) for x0, y0, x1, y1 in stored_regions)
    except TypeError as e:
        raise ValueError(str(e)) from None
    return CaptionRecord(**facts), {"study": "", **value["meta"]}


Group = Literal["exam", "breast"]
"""What a sample of several views is made of."""
GROUPS: tuple[Group, ...] = ("exam", "breast")
VIEW_KIND = "view_kind"
"""In the meta of a single mammogram that is no standard one: how it was made."""
VIEWS = "views"
"""Key of the JSON member, beside `record` and `meta`."""


@dataclass(frozen=True)
class SampleView:
    """One view of a sample, without its pixels."""

    member: str
    """Extension of the member with its image: "0.jpg" for the first view."""
    view: ViewType
    sha256: str
    """Of the source file."""
    texts: tuple[str, ...] = ()
    """What the table says of this very image; where it says nothing, the sample's record speaks for it."""
    labels: Mapping[str, str | Mapping[str, int]] = field(default_factory=dict)
    """Labels of this very image, in the form of `CaptionRecord.labels`."""
    report: str | None = None
    """Where the reports of the views differ, its own."""
    implant: bool | None = None
    """Whether the header states a breast implant."""

    def to_dict(self) -> dict[str, Any]:
        """Return the form that the JSON member holds."""
        more = {"report": self.report, "implant": self.implant}
        return {
            "member": self.member,
            "side": self.view.side,
            "position": self.view.position,
            "kind": self.view.kind,
            "sha256": self.sha256,
            "texts": list(self.texts),
            "labels": dict(self.labels),
            **{name: value for name, value in more.items() if value is not None},
        }


def views_of(parts: Mapping[str, bytes]) -> tuple[SampleView, ...]:
    """Read which views a sample holds from its members; none for a sample of one image.

    Raises:
        KeyError, ValueError, TypeError: The JSON is of another form.
    """
    return tuple(
        SampleView(
            member=str(value["member"]),
            view=ViewType(value["side"], value["position"], value["kind"]),
            sha256=str(value["sha256"]),
            texts=tuple(value["texts"]),
            labels=value["labels"],
            report=value.get("report"),
            implant=value.get("implant"),
        )
        for value in json.loads(parts["json"]).get(VIEWS, ())
    )
