"""Arrange the mammograms of a study: right and left, CC and MLO, what is missing and what is set aside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from medclip.dicom.header.read import modality_code
from medclip.files.grouping.mammogram import DISPLACED, ExamView, exam_view, stated_position
from medclip.files.tables.days import days_before
from medclip.sample import POSITIONS, SIDES, VIEW_KINDS, FileRef, Study, Unit, ViewKind, ViewType

if TYPE_CHECKING:
    from medclip.files.recognise.inspect import FileFacts

SLOTS = tuple(f"{side}-{position}" for position in POSITIONS for side in SIDES)
"""The views of a screening examination, as they hang: R-CC, L-CC, R-MLO, L-MLO."""


class Aside(StrEnum):
    """Why a mammogram of a study is none of its views."""

    REPEAT = "repeat"
    """Its place is taken: two CC views of one side, say."""
    FOR_PROCESSING = "for_processing"
    """Raw detector values, and its place has an image for presentation."""
    PARTIAL = "partial_view"
    """Spot compression, magnification, or a part of the breast."""
    OTHER_VIEW = "other_view"
    """A view that is none of the four, such as ML."""
    NO_POSITION = "no_position"
    NO_SIDE = "no_side"
    SIDES_CONTRADICT = "sides_contradict"
    """Header, table and file name state different sides."""


_WHY: Mapping[Aside, str] = {
    Aside.REPEAT: "its place is taken by another image of the same view",
    Aside.FOR_PROCESSING: "it is for processing, and its place has an image for presentation",
    Aside.PARTIAL: "it is magnified, spot compressed or shows a part of the breast",
    Aside.OTHER_VIEW: "its view is none of the four (an ML view is no MLO)",
    Aside.NO_POSITION: "neither header nor table names its view as CC or MLO",
    Aside.NO_SIDE: "neither header nor table names its side",
    Aside.SIDES_CONTRADICT: "header, table and file name state different sides",
}


def why_aside(reason: Aside) -> str:
    """Return a reason in words, as they stand behind "set aside because"."""
    return _WHY[reason]


@dataclass(frozen=True)
class MammographyExam:
    """A study's mammograms in their places."""

    chosen: tuple[ExamView, ...]
    """One for each place that is filled, in hanging order; kinds one after the other."""
    missing: tuple[str, ...]
    """Places without an image, of the kinds that the study has."""
    set_aside: tuple[tuple[ExamView, Aside], ...]
    """All other mammograms, in the order given, and why each is none of the views."""
    earlier: tuple[tuple[str, int], ...] = ()
    """Keys of earlier examinations of the same patient, and how many days before, the latest first."""

    @property
    def views(self) -> tuple[tuple[str, str], ...]:
        """Place and name of each view."""
        return tuple((view.slot or "", view.name) for view in self.chosen)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What the examination's scores should be read with: `one_view`, `missing_views`, `implant` and `Aside`."""
        reasons = {str(reason) for _, reason in self.set_aside}
        if any(view.intent == "processing" for view in self.chosen):
            reasons.add("only_for_processing")
        if any(view.implant or DISPLACED in view.modifiers for view in self._everything()):
            reasons.add("implant")
        if len(self.chosen) == 1:
            reasons.add("one_view")
        elif self.missing:
            reasons.add("missing_views")
        return tuple(sorted(reasons))

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth knowing, in words."""
        notes = []
        reasons = [reason for _, reason in self.set_aside]
        if num_raw := reasons.count(Aside.FOR_PROCESSING):
            notes.append(f"{num_raw} for processing left out: the slot has one for presentation")
        raw = [view.slot or "" for view in self.chosen if view.intent == "processing"]
        if raw:
            notes.append(f"for processing only (raw detector values): {', '.join(raw)}")
        displaced = [view.slot or "" for view in self.chosen if DISPLACED in view.modifiers]
        if displaced:
            notes.append(f"implant displaced: {', '.join(displaced)}")
        if any(view.implant for view in self._everything()):
            notes.append("breast implant present")
        for words, those in (
            ("more of a view that is there", (Aside.REPEAT,)),
            ("magnified, spot compressed or partial", (Aside.PARTIAL,)),
            ("of a view that is none of the four", (Aside.OTHER_VIEW,)),
            ("without a stated side or view", (Aside.NO_POSITION, Aside.NO_SIDE)),
            ("whose header, table and file name state different sides", (Aside.SIDES_CONTRADICT,)),
        ):
            if num := sum(reason in those for reason in reasons):
                notes.append(f"{num} {words}")
        return tuple(notes)

    def _everything(self) -> tuple[ExamView, ...]:
        return (*self.chosen, *(view for view, _ in self.set_aside))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "views": dict(self.views),
            "missing": list(self.missing),
            "extra": [view.to_dict() | {"reason": str(reason)} for view, reason in self.set_aside],
            "reasons": list(self.reasons),
            "notes": list(self.notes),
            "earlier": [{"study": study, "days": days} for study, days in self.earlier],
        }


def arrange(views: Iterable[ExamView]) -> MammographyExam:
    """Arrange the mammograms of one study, or of one breast, by side and position.

    Where a place has several, the one for presentation is taken before the one for processing, the standard view before
    one with the implant displaced, then the first by instance number and name.

    Args:
        views: Mammograms of one study, each once.

    Example:
        >>> exam = arrange([ExamView("a", ViewType("L", "MLO")), ExamView("b", ViewType("R", "ML"))])
        >>> exam.views, exam.missing, exam.set_aside[0][1].value
        ((('L-MLO', 'a'),), ('R-CC', 'L-CC', 'R-MLO'), 'other_view')
    """
    views = tuple(views)
    chosen: dict[str, ExamView] = {}
    for view in sorted(views, key=_rank):
        if view.slot is not None:
            chosen.setdefault(view.slot, view)
    placed = sorted(chosen.values(), key=lambda view: view.view.hanging)
    kinds = sorted({view.view.kind for view in placed}, key=VIEW_KINDS.index) or [ViewKind.STANDARD.value]
    slots = [ViewType(side, position, kind).slot or "" for kind in kinds for position in POSITIONS for side in SIDES]
    return MammographyExam(
        chosen=tuple(placed),
        missing=tuple(slot for slot in slots if slot not in chosen),
        set_aside=tuple((view, _why(view, chosen)) for view in views if chosen.get(view.slot or "") is not view),
    )


def exam_of(files: Sequence[tuple[FileRef, FileFacts]], units: Sequence[Unit] = ()) -> MammographyExam | None:
    """Assemble the mammograms of one study.

    Args:
        files: Files of one study; others than mammograms do not matter.
        units: The study's units, which hold what a table states; an image without a header is a mammogram where its
            unit states a view.

    Returns:
        None where no mammogram is among them.
    """
    stated = {unit.files[0].name: unit.stated_view for unit in units}
    views = [view for ref, facts in files if (view := _view_of(ref, facts, stated.get(ref.name)))]
    return arrange(views) if views else None


def exams_of(studies: Sequence[Study], facts: Mapping[str, FileFacts]) -> dict[str, MammographyExam]:
    """Assemble the mammograms of many studies, and order the examinations of each patient by the days between them.

    Args:
        studies: Studies of any modality.
        facts: Facts of each file, by its name.

    Returns:
        Key of the study -> its examination, for studies with mammograms.
    """
    exams: dict[str, MammographyExam] = {}
    days: dict[str, dict[str, date]] = {}
    for study in studies:
        exam = exam_of([(ref, facts[ref.name]) for ref in study.files], study.units)
        if exam is None:
            continue
        exams[study.key] = exam
        known = [unit.exam_date for unit in study.units if unit.exam_date is not None]
        if study.patient and known:
            days.setdefault(study.patient, {})[study.key] = min(known)
    earlier = {study.key: days_before(study.key, days.get(study.patient or "", {})) for study in studies}
    return {key: replace(exam, earlier=earlier[key]) for key, exam in exams.items()}


def twins_for_processing(files: Sequence[tuple[FileRef, FileFacts]]) -> frozenset[str]:
    """Name the mammograms for processing whose view the same study also has for presentation.

    A device may send both: raw detector values for a computer, and the image made of them for a reader. They are one
    exposure and must not count twice.

    Args:
        files: Files of one study or of several; others than DICOM mammograms do not matter.

    Returns:
        Names of files. Without a stated side and view nothing is known, so those are not among them.
    """
    raw: dict[tuple[object, ...], list[str]] = {}
    shown: set[tuple[object, ...]] = set()
    for ref, facts in files:
        header = facts.header
        if header is None or modality_code(header) != "MG":
            continue
        view, stated = exam_view(ref.name, header), stated_position(header)
        if not view.view.side or not stated:
            continue
        # As stated, also where it is none of our views: this is compared and never shown.
        place = header.patient_id, header.study_uid, view.view.side, stated, view.modifiers, view.view.kind
        if view.intent == "processing":
            raw.setdefault(place, []).append(ref.name)
        elif view.intent == "presentation":
            shown.add(place)
    return frozenset(name for place, names in raw.items() if place in shown for name in names)


def _view_of(ref: FileRef, facts: FileFacts, stated: ViewType | None) -> ExamView | None:
    """Return the view of a mammogram; None for other files."""
    header = facts.header
    if stated is None and (header is None or modality_code(header) != "MG"):
        return None
    return exam_view(ref.name, header, table=stated, file_name=ref.path.name)


def _why(view: ExamView, chosen: Mapping[str, ExamView]) -> Aside:
    """Return why a view that was not chosen is set aside."""
    if view.sides_contradict:
        return Aside.SIDES_CONTRADICT
    if view.is_partial:
        return Aside.PARTIAL
    if not view.view.position:
        return Aside.NO_POSITION
    if view.view.position not in POSITIONS:
        return Aside.OTHER_VIEW
    if not view.view.side:
        return Aside.NO_SIDE
    taken = chosen[view.slot or ""]
    return Aside.FOR_PROCESSING if view.intent == "processing" != taken.intent else Aside.REPEAT


def _rank(view: ExamView) -> tuple[bool, bool, float, str]:
    number = float("inf") if view.number is None else view.number
    return view.intent == "processing", DISPLACED in view.modifiers, number, view.name
