"""Edited pairs as patients are: two images of one patient at two dates, whose texts differ by one change.

No image is made: both are of the shards, and each is the other's partner. Their texts are compared by what they state
of known findings and devices; what the rules do not know may differ, too, and so may the images in all that no text
says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import combinations

from medclip.pairs.words.reports.edited_pairs import EditRow
from medclip.pairs.words.reports.hard_negatives import DEVICES, SWAPS, devices_of, edits_of
from medclip.pairs.words.reports.report_cleaning import entities

KIND = "before_after"


@dataclass(frozen=True)
class Dated:
    """One image of a training split with its text."""

    key: str
    patient: str
    """"" where nobody is named."""
    look: tuple[str, ...]
    """Modality, view and side, which two images must share."""
    text: str
    day: date | None


def single_change(text: str, other: str, modality: str = "") -> tuple[str, str] | str:
    """Compare two texts.

    Returns:
        Kind of the one change between them and what it is of; else a reason: `no_change`, `several_changes`, or
        `not_in_both` where one affirms what the other does not speak of.

    Example:
        >>> single_change("Left effusion. Normal heart size.", "No effusion. Normal heart size.", "xray")
        ('presence', 'effusion')
        >>> single_change("Small left effusion.", "Large right effusion.", "xray")
        'several_changes'
    """
    one, two = ({**entities(t, modality), **devices_of(t)} for t in (text, other))
    if any(value and name not in two for name, value in one.items()) or any(
        value and name not in one for name, value in two.items()
    ):
        return "not_in_both"
    changes = [
        ("device" if name in DEVICES else "presence", name) for name in one if name in two and one[name] != two[name]
    ]
    values, other_values = (_values(t, modality) for t in (text, other))
    changes += [of for of in values if of in other_values and values[of] != other_values[of]]
    if not changes:
        return "no_change"
    return changes[0] if len(changes) == 1 else "several_changes"


def _values(text: str, modality: str) -> Mapping[tuple[str, str], frozenset[str]]:
    """Return the side, place, size and number that a text states of each finding it affirms."""
    values: dict[tuple[str, str], frozenset[str]] = {}
    for edit in edits_of(text, modality):
        if edit.kind in SWAPS:
            of = (edit.kind, edit.entity)
            values[of] = values.get(of, frozenset()) | {edit.before}
    return values


def dated_pairs(images: Sequence[Dated]) -> tuple[Mapping[str, str], list[EditRow]]:
    """Pair images of a patient, each with the next later one that fits; an image is of one pair.

    Returns:
        Name of the pair by key of each image that has one, and a row for each image with its reason: `no_text`,
        `no_date`, `no_patient`, `one_date`, `other_view`, `taken`, or what `single_change` says of the nearest one.
    """
    by_patient: dict[str, list[Dated]] = defaultdict(list)
    for image in images:
        if image.text and image.day is not None and image.patient:
            by_patient[image.patient].append(image)
    rows: dict[str, EditRow] = {}
    for of_patient in by_patient.values():
        _pair(sorted(of_patient, key=lambda i: (i.day or date.min, i.key)), rows)
    for image in images:
        if image.key not in rows:
            reason = "no_text" if not image.text else "no_date" if image.day is None else "no_patient"
            rows[image.key] = EditRow(image.key, KIND, reason)
    return {key: row.pair for key, row in rows.items() if row.pair}, [rows[image.key] for image in images]


def _pair(ordered: Sequence[Dated], rows: dict[str, EditRow]) -> None:
    """Add the rows of the images of one patient."""
    for first, later in combinations(ordered, 2):
        if first.key in rows or later.key in rows or later.day == first.day or later.look != first.look:
            continue
        change = single_change(first.text, later.text, first.look[0])
        if isinstance(change, tuple):
            kind, entity = change
            for key, other in ((first.key, later.key), (later.key, first.key)):
                rows[key] = EditRow(key, KIND, "", f"{first.key}~{KIND}", other, (entity,), kind)
    for image in ordered:
        if image.key not in rows:
            rows[image.key] = EditRow(image.key, KIND, _reason(image, ordered))


def _reason(image: Dated, of_patient: Sequence[Dated]) -> str:
    """Return why an image without a partner has none."""
    others = [i for i in of_patient if i.day != image.day]
    if not others:
        return "one_date"
    others = [i for i in others if i.look == image.look]
    if not others:
        return "other_view"
    assert image.day is not None
    nearest = min(others, key=lambda i: (abs(((i.day or date.min) - (image.day or date.min)).days), i.key))
    change = single_change(image.text, nearest.text, image.look[0])
    return change if isinstance(change, str) else "taken"
