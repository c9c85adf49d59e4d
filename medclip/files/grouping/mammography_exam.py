"""Arrange the mammograms of a study: right and left, CC and MLO, what is missing and what is set aside."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from medclip.dicom.header.read import DicomHeader, modality_code
from medclip.dicom.header.safe_header import VIEWS, public_values
from medclip.files.tables.cells import days_before
from medclip.sample import POSITIONS, SIDES, VIEW_KINDS, FileRef, Study, Unit, ViewKind, ViewType

if TYPE_CHECKING:
    from medclip.files.recognise.inspect import FileFacts


# What is known of the view of one mammogram, from its header, a table and the name of its file.

DISPLACED = "implant displaced"
_IN_WORDS: Mapping[str, str] = {
    "SPOT": "spot compression",
    "MAG": "magnification",
    "MAGN": "magnification",
    "MAGNIFICATION": "magnification",
    "MAGNIFIED": "magnification",
}
"""Words of a table's cell, or of a ViewPosition, beside the view: "CC MAG", "SPOT MLO"."""
_SIDE_WORDS: Mapping[str, str] = {"LEFT": "L", "RIGHT": "R", "L": "L", "R": "R"}
_WORD = re.compile(r"[A-Z0-9]+")
_SIDED_VIEW = re.compile(r"([LR])(CC|MLO)")


@dataclass(frozen=True)
class ExamView:
    """One mammogram with what is known of its view, whether it lies on a disk, in a table of scores or in a shard."""

    name: str
    """What it is told from others by: the name of its file, or a key."""
    view: ViewType
    intent: str = ""
    """"presentation", "processing" or ""."""
    modifiers: tuple[str, ...] = ()
    """What was done differently: magnification, spot compression, implant displaced and others."""
    implant: bool | None = None
    """Whether a breast implant is stated; None where nothing is said."""
    sides_contradict: bool = False
    """Header, table and file name do not state the same side, so that `view` has none."""
    number: int | None = None
    """Instance number, up to 999: a longer one may be a patient's."""

    @property
    def slot(self) -> str | None:
        """Its place among the views of an examination; None for other views and for partial ones."""
        return None if self.is_partial else self.view.slot

    @property
    def is_partial(self) -> bool:
        """Whether it shows a part of the breast, or the breast as none of the four views does."""
        return any(modifier != DISPLACED for modifier in self.modifiers)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; None for what is not known."""
        return {
            "file": self.name,
            "side": self.view.side or None,
            "view": self.view.position or None,
            "kind": self.view.kind,
            "intent": self.intent or None,
            "modifiers": list(self.modifiers),
            "implant": self.implant,
        }


def exam_view(
    name: str, header: DicomHeader | None = None, *, table: ViewType | None = None, file_name: str | None = None
) -> ExamView:
    """Return what is known of a mammogram's view.

    A table's row speaks of that very file, so it goes before the header; the file's name is never believed, but it may
    contradict. Where two of them state different sides, the side is not known.

    Args:
        name: Name of the mammogram in the result.
        header: Header of a DICOM file.
        table: View that a table states; its position may hold words such as "CC MAG".
        file_name: A path whose last part may name a side, such as `0_L_CC.png`; `name` where None.
    """
    values = {} if header is None else public_values(header)
    position, modifiers, side_in_view = _position_of(header)
    sides = [values.get("laterality", ""), side_in_view]
    kind = values.get("exam_kind", ViewKind.STANDARD)
    if table is not None:
        in_table, of_table, side_in_table = _in_words(table.position)
        position, modifiers = in_table or position, modifiers | of_table
        sides = [table.side, side_in_table, *sides]
        kind = table.kind if table.kind != ViewKind.STANDARD else kind
    stated = [side for side in sides if side in SIDES]
    contradict = len({*stated, *_sides_named(name if file_name is None else file_name)}) > 1 and bool(stated)
    return ExamView(
        name,
        ViewType("" if contradict or not stated else stated[0], position, str(kind)),
        values.get("intent", "").removeprefix("FOR ").lower(),
        tuple(sorted({*modifiers, *values.get("view_modifiers", ())})),
        values.get("breast_implant"),
        contradict,
        None if header is None or not 0 <= (header.instance_number or 0) < 1000 else header.instance_number,
    )


def exam_view_of_row(name: str, laterality: str | None, view: str | None, headers: str | None) -> ExamView:
    """Return what a row of files.parquet, or of a store of embeddings, knows of a mammogram's view.

    Args:
        name: Name of the mammogram in the result.
        laterality: Side that the row states; None where it is not known.
        view: The row's position.
        headers: The row's JSON of header values.
    """
    values = json.loads(headers) if headers else {}
    position, modifiers, _ = _in_words(view or "")
    return ExamView(
        name,
        ViewType(laterality if laterality in SIDES else "", position, values.get("exam_kind", ViewKind.STANDARD.value)),
        values.get("intent", "").removeprefix("FOR ").lower(),
        tuple(sorted({*modifiers, *values.get("view_modifiers", ())})),
        values.get("breast_implant"),
        bool(values.get("sides_contradict")),
        values.get("instance_number"),
    )


def stated_position(header: DicomHeader) -> str:
    """Return the view in the header's own words, for comparing only: it may be any text. "" where it has none."""
    stated = header.view_position
    if stated in ("CCID", "MLOID"):  # computed radiography's terms for displaced implants
        stated = stated.removesuffix("ID")
    orientation = header.patient_orientation
    if not stated and len(orientation) == 1 and orientation[0].upper() in POSITIONS:
        stated = orientation[0].upper()  # CBIS-DDSM, the largest public set of films, writes the view there
    return header.view_code or stated


def _position_of(header: DicomHeader | None) -> tuple[str, frozenset[str], str]:
    """Return position, modifiers and side that a header's words for the view name, in our own words only."""
    if header is None:
        return "", frozenset(), ""
    position, modifiers, side = _in_words(header.view_position)
    return position or _in_words(stated_position(header))[0], modifiers, side


def _in_words(text: str) -> tuple[str, frozenset[str], str]:
    """Return position, modifiers and side of a text such as CC, MLOID, RCC or CC MAG; empty for what is not known."""
    position, side, modifiers = "", "", set[str]()
    for word in _WORD.findall(text.upper()):
        sided = _SIDED_VIEW.fullmatch(word)
        if sided:
            side, position = sided.groups()
        elif word in ("CCID", "MLOID"):
            position = word.removesuffix("ID")
            modifiers.add(DISPLACED)
        elif word in _IN_WORDS:
            modifiers.add(_IN_WORDS[word])
        elif word in VIEWS and not position:
            position = word
    return position, frozenset(modifiers), side


def _sides_named(file_name: str) -> frozenset[str]:
    """Return the sides that a file's name states beside a view, such as `P_00173_LEFT_CC.dcm`.

    A lone letter without a view beside it may mean anything, and so may the words of a folder.
    """
    words = _WORD.findall(PurePosixPath(file_name).name.upper())
    sides = {match[1] for word in words if (match := _SIDED_VIEW.fullmatch(word))}
    if set(words) & set(POSITIONS):
        sides |= {_SIDE_WORDS[word] for word in words if word in _SIDE_WORDS}
    return frozenset(sides)


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
        dates = [unit.exam_date for unit in study.units if unit.exam_date is not None]
        if study.patient and dates:
            days.setdefault(study.patient, {})[study.key] = min(dates)
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
    for_people: set[tuple[object, ...]] = set()
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
            for_people.add(place)
    return frozenset(name for place, names in raw.items() if place in for_people for name in names)


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
