"""Put the files of a mammography study in their places: left and right, CC and MLO, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medclip.dicom.header.read import DicomHeader, modality_code
from medclip.dicom.header.safe_header import public_values
from medclip.sample import FileRef

if TYPE_CHECKING:
    from medclip.files.recognise.inspect import FileFacts

SLOTS = ("L-CC", "L-MLO", "R-CC", "R-MLO")
"""The views of a screening examination."""
_DISPLACED = "implant displaced"
_PARTIAL = frozenset({"magnification", "spot compression"})


@dataclass(frozen=True)
class ExamView:
    """One mammogram with what its header says of the view."""

    file: FileRef
    side: str
    """L, R or "" where it is not stated."""
    view: str
    """CC, MLO, ML, ... or "" where none of the allow-list's views is stated."""
    intent: str
    """"presentation", "processing" or ""."""
    modifiers: tuple[str, ...] = ()

    @property
    def slot(self) -> str | None:
        """Place among the four views; None for other views and for partial ones."""
        name = f"{self.side}-{self.view}"
        return name if name in SLOTS and not _PARTIAL.intersection(self.modifiers) else None


@dataclass(frozen=True)
class MammographyExam:
    """A study's mammograms in their places."""

    views: tuple[tuple[str, FileRef], ...]
    """Slot and file, in the order of `SLOTS`."""
    missing: tuple[str, ...]
    """Slots without a file."""
    extra: tuple[ExamView, ...]
    """All other mammograms: repeats, other views, those for processing where one for presentation exists."""
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "views": {slot: ref.name for slot, ref in self.views},
            "missing": list(self.missing),
            "extra": [
                {
                    "file": item.file.name,
                    "side": item.side or None,
                    "view": item.view or None,
                    "intent": item.intent or None,
                    "modifiers": list(item.modifiers),
                }
                for item in self.extra
            ],
            "notes": list(self.notes),
        }


def exam_of(files: Sequence[tuple[FileRef, FileFacts]]) -> MammographyExam | None:
    """Assemble the mammograms of one study.

    Where a slot has several, the one for presentation is taken before the one for processing, the standard view before
    one with the implant displaced, then the first by instance number and name.

    Args:
        files: Files of one study; others than DICOM mammograms do not matter.

    Returns:
        None where no DICOM mammogram is among them.
    """
    views = [
        (_view(ref, facts.header), facts.header)
        for ref, facts in files
        if facts.header is not None and modality_code(facts.header) == "MG"
    ]
    if not views:
        return None
    ranked = sorted(views, key=lambda pair: _rank(*pair))
    chosen: dict[str, ExamView] = {}
    for view, _ in ranked:
        if view.slot is not None:
            chosen.setdefault(view.slot, view)
    taken = {view.file.name for view in chosen.values()}
    extra = tuple(sorted((view for view, _ in views if view.file.name not in taken), key=lambda view: view.file.name))
    return MammographyExam(
        views=tuple((slot, chosen[slot].file) for slot in SLOTS if slot in chosen),
        missing=tuple(slot for slot in SLOTS if slot not in chosen),
        extra=extra,
        notes=_notes(chosen, extra, [header for _, header in views]),
    )


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
        view, stated = _view(ref, header), _stated(header)
        if not view.side or not stated:
            continue
        # As stated, also where it is none of our views: this is compared and never shown.
        place = header.patient_id, header.study_uid, view.side, stated, view.modifiers
        if view.intent == "processing":
            raw.setdefault(place, []).append(ref.name)
        elif view.intent == "presentation":
            shown.add(place)
    return frozenset(name for place, names in raw.items() if place in shown for name in names)


def _view(ref: FileRef, header: DicomHeader) -> ExamView:
    """Return what a header states of a mammogram, in the values of the allow-list: ViewPosition may be a free text."""
    known = public_values(header)
    modifiers = set(known.get("view_modifiers", ()))
    if _is_displaced(header.view_position):
        modifiers.add(_DISPLACED)
    stated = _stated(header)
    view = stated if stated in ("CC", "MLO") else known.get("view", "").removesuffix("ID")
    side = known.get("laterality", "")
    intent = known.get("intent", "").removeprefix("FOR ").lower()
    return ExamView(ref, side if side in ("L", "R") else "", view, intent, tuple(sorted(modifiers)))


def _stated(header: DicomHeader) -> str:
    """Return the view in the words of the header; "" where it has none."""
    stated = header.view_position
    if _is_displaced(stated):
        stated = stated.removesuffix("ID")
    orientation = header.patient_orientation
    if not stated and len(orientation) == 1 and orientation[0] in ("CC", "MLO"):
        stated = orientation[0]  # CBIS-DDSM, the largest public set of films, writes the view there
    return header.view_code or stated


def _is_displaced(view: str) -> bool:
    """Know the terms of computed radiography for displaced implants: CCID, MLOID."""
    return view in ("CCID", "MLOID")


def _rank(view: ExamView, header: DicomHeader) -> tuple[bool, bool, float, str]:
    number = header.instance_number
    return (
        view.intent == "processing",
        _DISPLACED in view.modifiers,
        float("inf") if number is None else number,
        view.file.name,
    )


def _notes(
    chosen: Mapping[str, ExamView], extra: Sequence[ExamView], headers: Sequence[DicomHeader]
) -> tuple[str, ...]:
    notes = []
    left_out = sum(view.intent == "processing" and chosen.get(view.slot or "", view) is not view for view in extra)
    if left_out:
        notes.append(f"{left_out} for processing left out: the slot has one for presentation or an earlier one")
    raw = [slot for slot in SLOTS if slot in chosen and chosen[slot].intent == "processing"]
    if raw:
        notes.append(f"for processing only (raw detector values): {', '.join(raw)}")
    displaced = [slot for slot in SLOTS if slot in chosen and _DISPLACED in chosen[slot].modifiers]
    if displaced:
        notes.append(f"implant displaced: {', '.join(displaced)}")
    if any(header.breast_implant for header in headers):
        notes.append("breast implant present")
    unplaced = sum(not (view.side and view.view) for view in extra)
    if unplaced:
        notes.append(f"{unplaced} without a stated side or view")
    return tuple(notes)
