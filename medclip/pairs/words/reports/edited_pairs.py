"""Edited pairs: two images with one text each that differ by one edit, and what became of each candidate."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError
from medclip.shards.folder import SYNTHETIC
from medclip.shards.reading.samples import ShardReader
from medclip.shards.sample_json import from_json, to_json
from medclip.shards.stored_data import EXTENSIONS, encode
from medclip.shards.writing.rewrite import Partner
from medclip.text.captions.record import CaptionRecord

_QUALITY = 95


@dataclass(frozen=True)
class EditRow:
    """What became of one candidate."""

    key: str
    kind: str
    reason: str
    """"" where the pair was written."""
    pair: str = ""
    partner: str = ""
    entities: tuple[str, ...] = ()
    """Findings or devices that are said otherwise of the partner."""
    change: str = ""
    """Kind of the change of words, one of `hard_negatives.KINDS`."""


def pixels_of(members: Mapping[str, bytes]) -> NDArray[np.uint8] | str:
    """Decode the single image of a sample as uint8 [H, W, C]; a reason where there is none."""
    if sum(name in EXTENSIONS for name in members) != 1:
        return "no_single_image"
    try:
        return np.atleast_3d(np.asarray(ShardReader.image(members)))
    except MedclipError as e:
        return str(e.reason)


def edited_partner(
    row: EditRow, members: Mapping[str, bytes], edited: CaptionRecord, pixels: NDArray[np.uint8]
) -> tuple[Partner, EditRow]:
    """Make the partner of a rewritten sample.

    Args:
        row: Row of the candidate, without the names that are given here.
        members: Members of the sample, by extension.
        edited: Record of the partner, whose roles that nothing is known of are emptied here.
        pixels: Image of the partner, uint8 [H, W, C].
    """
    record, meta = from_json(members["json"])
    name = f"{row.key}~{row.kind}"
    (extension,) = (e for e in members if e in EXTENSIONS)
    extension = "png" if extension == "png" else "jpg"
    image = encode(np.ascontiguousarray(pixels), "png" if extension == "png" else "jpeg", _QUALITY)
    edited = replace(edited, candidates=(), negatives=(), edit_pairs=(name,), regions=())
    facts = {"kind": row.kind, "of": row.key, "pair": name, "entities": list(row.entities)}
    # Of no study: samples of one study would be positives of each other.
    content = to_json(edited, meta | {"study": "", "key": name, SYNTHETIC: True}, {"edited": facts})
    added = {extension: image, "json": content}
    if "txt" in members:
        added["txt"] = edited.texts[0].encode()
    sha256 = hashlib.sha256(image).hexdigest()
    source = paired(members, record, name)
    return Partner(source, name, added, name, sha256, row.kind), replace(row, pair=name, partner=name)


def paired(members: Mapping[str, bytes], record: CaptionRecord, pair: str) -> dict[str, bytes]:
    """Write the name of its pair into a sample."""
    value: dict[str, Any] = json.loads(members["json"])
    more = {name: part for name, part in value.items() if name not in ("record", "meta")}
    return dict(members) | {"json": to_json(replace(record, edit_pairs=(pair,)), value["meta"], more)}
