"""Edited pairs of image and text: the image mirrored, left and right exchanged in its text (CLIP-IN's edit pairs).

A mirrored chest has its heart on the other side, which its text does not say, and a burned-in "L" would be mirrored,
too: an image takes part where its source is named as one without letters, or, if so asked, where none are seen.

Reference: CLIP-IN, 2025; the edits are medical ones, for the authors' come from instruction-editing data of
photographs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from medclip.imaging.letters import letter_boxes
from medclip.pairs.words.reports.edited_pairs import EditRow, edited_partner, pixels_of
from medclip.pairs.words.reports.hard_negatives import edits_of
from medclip.shards.sample_json import from_json
from medclip.shards.writing.rewrite import Partner
from medclip.training.batches.augment import names_a_side
from medclip.wording import capital

KIND = "mirror"
LEAST_CHANGED = 0.01
"""Share of pixels that differ by more than `LEAST_GREY` in a mirrored image that is seen to be another."""
LEAST_GREY = 16
_SIDE = re.compile(r"\b(left|right)(?=\b)", re.I)
_NAMES = re.compile(
    r"\b(?:left|right)(?:[- ]sided)?[- ](?:\w+[- ])?(?:ventric\w*|atri\w*|heart\w*|main ?stem|hemicolon)\b"
    r"|\b(?:middle lobe|horizontal fissure|minor fissure|azyg\w*|liver|hepat\w*|spleen|splen\w*|stomach|gastric)\b"
    r"|\b(?:gall\w*|appendi\w*|aort\w*)\b",
    re.I,
)
"""Words of a part that keeps its name, or its side, in a mirrored body: "left ventricle", "stomach"."""


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
    key: str, members: Mapping[str, bytes], without_letters: tuple[str, ...], *, detect_letters: bool = False
) -> tuple[Partner | None, EditRow]:
    """Make the partner of a rewritten sample, and the row of this candidate.

    Args:
        key: Key of the sample.
        members: Members of the sample, by extension.
        without_letters: Sources whose images have no letters burned in.
        detect_letters: Whether images of other sources take part where no letters are seen.
    """
    record, meta = from_json(members["json"])
    modality = "" if record.modality is None else str(record.modality)
    text = record.texts[0] if record.texts else ""
    is_named = meta.get("source") in without_letters
    reason = fault_of_mirroring(text, modality) if text else "no_text"
    if not reason and not is_named and not detect_letters:
        reason = "letters_not_ruled_out"
    if not reason and any(
        fault_of_mirroring(one, modality) in ("other_word", "one_sided") for one in record.long_captions
    ):
        reason = "long_text"
    if reason:
        return None, EditRow(key, KIND, reason)
    pixels = pixels_of(members)
    if isinstance(pixels, str):
        return None, EditRow(key, KIND, pixels)
    mirrored = pixels[:, ::-1]
    if (np.abs(mirrored.astype(np.int16) - pixels).max(-1) > LEAST_GREY).mean() < LEAST_CHANGED:
        return None, EditRow(key, KIND, "image_unchanged")
    if not is_named and (meta.get("burned_in") or letter_boxes(pixels)):
        return None, EditRow(key, KIND, "letters_seen")
    other_side = {"L": "R", "R": "L"}.get(record.laterality or "")
    edited = replace(
        record,
        laterality=other_side or record.laterality,
        texts=(mirrored_text(text),),
        report=mirrored_text(record.report) if record.report else None,
        long_captions=tuple(mirrored_text(one) for one in record.long_captions),
        tags=tuple(mirrored_text(tag) for tag in record.tags),
        absent_tags=tuple(mirrored_text(tag) for tag in record.absent_tags),
    )
    row = EditRow(key, KIND, "", entities=changed_entities(text, modality), change="side")
    return edited_partner(row, members, edited, mirrored)
