"""What is known of the view of one mammogram, from its header, a table and the name of its file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from medclip.dicom.header.read import DicomHeader
from medclip.dicom.header.safe_header import VIEWS, public_values
from medclip.sample import POSITIONS, SIDES, ViewKind, ViewType

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
    known = {} if header is None else public_values(header)
    position, modifiers, side_in_view = _position_of(header)
    sides = [known.get("laterality", ""), side_in_view]
    kind = known.get("exam_kind", ViewKind.STANDARD)
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
        known.get("intent", "").removeprefix("FOR ").lower(),
        tuple(sorted({*modifiers, *known.get("view_modifiers", ())})),
        known.get("breast_implant"),
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
    known = json.loads(headers) if headers else {}
    position, modifiers, _ = _in_words(view or "")
    return ExamView(
        name,
        ViewType(laterality if laterality in SIDES else "", position, known.get("exam_kind", ViewKind.STANDARD.value)),
        known.get("intent", "").removeprefix("FOR ").lower(),
        tuple(sorted({*modifiers, *known.get("view_modifiers", ())})),
        known.get("breast_implant"),
        bool(known.get("sides_contradict")),
        known.get("instance_number"),
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
