"""What is said of the views of one examination, and of which side: whose captions a sample gets. No torch here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from medclip.sample import POSITIONS, SIDES, VIEW_KINDS, ViewType
from medclip.shards.sample_json import SampleView
from medclip.text.captions.record import CaptionRecord
from medclip.text.vocabulary.task import spoken_labels

ALL_SIDES = -1
"""Number of the side of a caption that is about all that is shown, or about a side that nobody named."""


@dataclass(frozen=True)
class Subject:
    """What one caption is drawn of."""

    record: CaptionRecord
    side: int = ALL_SIDES
    """Number of the side that it is about."""
    quoted: bool = False
    """It is quoted from the view's own texts, whatever share of captions is quoted elsewhere."""


def subjects_of(record: CaptionRecord, views: Sequence[SampleView], num_texts: int) -> list[Subject]:
    """Choose what the captions of a sample are about: one view after the other, each side in turn.

    Views that nothing of their own is said of are passed over. Where that is so of all, every caption is drawn of the
    sample's record; so is it where a report or texts of the whole examination stand against labels of views alone.

    Args:
        record: Record of the whole sample.
        views: Views in hanging order; none for a sample of one image.
        num_texts: Captions of a sample.
    """
    speaking = [view for view in views if view.texts or view.report]
    if not speaking and not (record.texts or record.report):
        speaking = [view for view in views if spoken_labels(view.labels)]
    if not speaking:
        sides = {view.view.side for view in views} if views else {record.laterality or ""}
        return [Subject(record, _number(sides.pop()) if len(sides) == 1 else ALL_SIDES)] * num_texts
    of_side: dict[str, list[SampleView]] = {}
    for view in speaking:
        of_side.setdefault(view.view.side, []).append(view)
    turns = list(of_side.values())
    chosen = [turns[n % len(turns)][n // len(turns) % len(turns[n % len(turns)])] for n in range(num_texts)]
    return [_subject(record, view) for view in chosen]


def types_of(record: CaptionRecord, views: Sequence[SampleView]) -> tuple[tuple[int, int, int], ...]:
    """Number side, position and kind of each view, as `ViewFusion.types` does; of one image by its record."""
    several = [view.view for view in views] or [ViewType(record.laterality or "", record.view or "")]
    return tuple((side, position, kind) for kind, position, side in (view.hanging for view in several))


def view_of(numbers: tuple[int, int, int]) -> ViewType:
    """Return the view that `types_of` numbered so; what has no name is unknown."""
    names = (SIDES, POSITIONS, VIEW_KINDS)
    side, position, kind = (
        known[number] if 0 <= number < len(known) else "" for number, known in zip(numbers, names, strict=True)
    )
    return ViewType(side, position, kind)


def kin_of(record: CaptionRecord, views: Sequence[SampleView]) -> str:
    """Return a text that is equal for examinations of which the same labels are true, view by view.

    Labels of the whole stand for both sides together, and say nothing of one; they count where one side is shown.
    """
    if any(spoken_labels(view.labels) for view in views):
        return json.dumps([(view.view.slot, spoken_labels(view.labels)) for view in views], sort_keys=True)
    if len({view.view.side for view in views}) > 1:
        return ""
    return label_key(replace(record, labels=spoken_labels(record.labels)))


def label_key(record: CaptionRecord) -> str:
    """Return a text that is equal for records which the same statements are true of.

    It is empty where only a text of its own is known of an image: what it says is not what the texts of others say.
    """
    if not (record.generic or record.labels) and (record.texts or record.report):
        return ""
    view = None if record.generic else record.view
    labels = {} if record.generic else record.labels
    return json.dumps([record.generic, record.modality, view, labels], sort_keys=True)


def _subject(record: CaptionRecord, view: SampleView) -> Subject:
    own = replace(
        record,
        view=view.view.position or None,
        laterality=view.view.side or None,
        labels=view.labels,
        texts=view.texts,
        report=view.report,
    )
    return Subject(own, _number(view.view.side), quoted=bool(view.texts or view.report))


def _number(side: str) -> int:
    return SIDES.index(side) if side in SIDES else ALL_SIDES
