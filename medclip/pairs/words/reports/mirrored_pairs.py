"""Edited pairs of image and text: the image mirrored, left and right exchanged in its text (CLIP-IN's edit pairs).

A mirrored chest has its heart on the other side, which its text does not say, and a burned-in "L" would be mirrored,
too. No letters are looked for here: an image takes part only where its source is named as one without letters.

Reference: CLIP-IN, 2025; the edits are medical ones, for the authors' come from instruction-editing data of
photographs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from medclip.errors import MedclipError
from medclip.pairs.words.reports.hard_negatives import edits_of
from medclip.shards.folder import SYNTHETIC
from medclip.shards.reading.samples import ShardReader
from medclip.shards.sample_json import from_json, to_json
from medclip.shards.stored_data import EXTENSIONS, encode
from medclip.shards.writing.rewrite import Partner
from medclip.training.batches.augment import names_a_side
from medclip.wording import capital

KIND = "mirror"
LEAST_CHANGED = 0.01
"""Share of pixels that differ by more than `LEAST_GREY` in a mirrored image that is seen to be another."""
LEAST_GREY = 16
_QUALITY = 95
_SIDE = re.compile(r"\b(left|right)(?=\b)", re.I)
_NAMES = re.compile(
    r"\b(?:left|right)(?:[- ]sided)?[- ](?:\w+[- ])?(?:ventric\w*|atri\w*|heart\w*|main ?stem|hemicolon)\b"
    r"|\b(?:middle lobe|horizontal fissure|minor fissure|azyg\w*|liver|hepat\w*|spleen|splen\w*|stomach|gastric)\b"
    r"|\b(?:gall\w*|appendi\w*|aort\w*)\b",
    re.I,
)
"""Words of a part that keeps its name, or its side, in a mirrored body: "left ventricle", "stomach"."""


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
    """Findings that have another side in the partner."""


def mirrored_text(text: str) -> str:
    """Exchange left and right.

    Example:
        >>> mirrored_text("Left effusion, larger than the right.")
        'Right effusion, larger than the left.'
    """

    def other(match: re.Match[str]) -> str:
        new = "right" if match[0].lower() == "left" else "left"
        return capital(new) if match[0][0].isupper() else new

    return _SIDE.sub(other, text)


def fault_of_mirroring(text: str, modality: str = "") -> str:
    """Return why a text has no mirrored partner; "" where it has one.

    The reasons: `names_no_side`; `no_changed_entity`, where no known finding would have another side, or another
    sentence names it, too; `other_word` for a side that is not said by left or right (RUL, od, lingula); `one_sided`
    for a part that keeps its name or side in a mirrored body.

    Args:
        text: Text that is true of an image.
        modality: Modality of the image; "" where it is not known.
    """
    if not names_a_side(text):
        return "names_no_side"
    if names_a_side(_SIDE.sub("", text)):
        return "other_word"
    if _NAMES.search(text):
        return "one_sided"
    return "" if changed_entities(text, modality) else "no_changed_entity"


def changed_entities(text: str, modality: str = "") -> tuple[str, ...]:
    """Return the findings that are affirmed of one side, each in one sentence alone."""
    return tuple(sorted({edit.entity for edit in edits_of(text, modality) if edit.kind == "side"}))


def mirrored_partner(
    key: str, members: Mapping[str, bytes], without_letters: tuple[str, ...]
) -> tuple[Partner | None, EditRow]:
    """Make the partner of a rewritten sample, and the row of this candidate.

    Args:
        key: Key of the sample.
        members: Members of the sample, by extension.
        without_letters: Sources whose images have no letters burned in.
    """
    record, meta = from_json(members["json"])
    modality = "" if record.modality is None else str(record.modality)
    text = record.texts[0] if record.texts else ""
    reason = fault_of_mirroring(text, modality) if text else "no_text"
    images = [name for name in members if name in EXTENSIONS]
    if not reason and len(images) != 1:
        reason = "no_single_image"
    if not reason and meta.get("source") not in without_letters:
        reason = "letters_not_ruled_out"
    if not reason and any(
        fault_of_mirroring(one, modality) in ("other_word", "one_sided") for one in record.long_captions
    ):
        reason = "long_text"
    if reason:
        return None, EditRow(key, KIND, reason)
    (name,) = images
    try:
        pixels = np.asarray(ShardReader.image(members))
    except MedclipError as e:
        return None, EditRow(key, KIND, str(e.reason))
    pixels = np.atleast_3d(pixels)
    mirrored = np.ascontiguousarray(pixels[:, ::-1])
    if (np.abs(mirrored.astype(np.int16) - pixels).max(-1) > LEAST_GREY).mean() < LEAST_CHANGED:
        return None, EditRow(key, KIND, "image_unchanged")
    pair = partner = f"{key}~{KIND}"
    image = encode(mirrored, "png" if name == "png" else "jpeg", _QUALITY)
    entities = changed_entities(text, modality)
    other_side = {"L": "R", "R": "L"}.get(record.laterality or "")
    edited = replace(
        record,
        laterality=other_side or record.laterality,
        texts=(mirrored_text(text),),
        candidates=(),
        report=mirrored_text(record.report) if record.report else None,
        negatives=(),
        long_captions=tuple(mirrored_text(one) for one in record.long_captions),
        tags=tuple(mirrored_text(tag) for tag in record.tags),
        absent_tags=tuple(mirrored_text(tag) for tag in record.absent_tags),
        edit_pairs=(pair,),
    )
    # Of no study: samples of one study would be positives of each other.
    mark: dict[str, Any] = {"edited": {"kind": KIND, "of": key, "pair": pair, "entities": list(entities)}}
    content = to_json(edited, meta | {"study": "", "key": partner, SYNTHETIC: True}, mark)
    value = json.loads(members["json"])
    more = {k: v for k, v in value.items() if k not in ("record", "meta")}
    source = to_json(replace(record, edit_pairs=(pair,)), value["meta"], more)
    added = {"png" if name == "png" else "jpg": image, "json": content}
    if "txt" in members:
        added["txt"] = edited.texts[0].encode()
    sha256 = hashlib.sha256(image).hexdigest()
    edit = Partner(dict(members) | {"json": source}, partner, added, pair, sha256, KIND)
    return edit, EditRow(key, KIND, "", pair, partner, entities)
