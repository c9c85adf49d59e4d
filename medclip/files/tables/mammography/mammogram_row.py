"""One mammogram as a table states it: what all sets are read into, and its cells in a table for shards."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from medclip.errors import MedclipError, Reason
from medclip.files.tables.cells import shown
from medclip.files.tables.table import number_hint, number_in
from medclip.text.breast_record import (
    CALCIFICATION,
    COMPOSITIONS,
    FINDINGS_TASK,
    LYMPH_NODE,
    MASS,
    BreastRecord,
    finding_kinds,
)

Cells = Mapping[str, str]
SUSPICION = (1, 2, 3, 0, 4, 5, 6)
"""BI-RADS assessments from the least to the most that is to be done: 0 asks for more images."""
BREAST_CANCER = "label:breast_cancer:malignancy"


@dataclass(frozen=True)
class MammogramRow:
    """One image."""

    file: str
    """Relative to the folder of the set's images."""
    patient: str
    """As the set names her; "" where it does not."""
    record: BreastRecord
    study: str = ""
    exam_date: str = ""
    age: str = ""
    split: str = ""
    report: str = ""
    """What a radiologist wrote of it."""
    texts: tuple[str, ...] = ()
    """Captions that it has already."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Columns `label:...` beside those that the record gives (`labels_of`), which they go before."""
    source: Cells = field(default_factory=dict, repr=False, compare=False)
    """The set's own row of it, the first one."""

    def cells(self) -> dict[str, str]:
        """Return its cells in a table that `medclip shards build` reads."""
        r = self.record
        plain = {
            "file": self.file,
            "patient": self.patient,
            "study": self.study,
            "modality": "mammography",
            "laterality": r.side,
            "view": r.view,
            "view_kind": r.view_kind,
            "exam_date": self.exam_date,
            "age": self.age,
            "split": self.split,
            "report": self.report,
        }
        return plain | labels_of(r) | dict(self.labels)


@dataclass(frozen=True)
class Reading:
    """What became of the rows of a set's table."""

    rows: tuple[MammogramRow, ...]
    set_aside: Mapping[str, int] = field(default_factory=dict)
    """Images that are no view of an exam, by reason."""
    notes: tuple[str, ...] = ()


def labels_of(record: BreastRecord) -> dict[str, str]:
    """Return the label columns that a record gives; nothing for what it does not state.

    Calcifications that are typically benign are no finding of the task `mammography_findings`, nor are plain lymph
    nodes; whether others are there is not known where nobody judged them.
    """
    labels: dict[str, str] = {}
    if record.composition:
        labels["label:breast_composition"] = record.composition
    if record.birads is not None:
        labels["label:breast_birads"] = f"birads_{record.birads}"
    for kind in finding_kinds():
        value = _truth(kind, record)
        if value:
            labels[f"label:{FINDINGS_TASK}:{kind}"] = value
    if record.pathology:
        labels["label:mammography_malignancy"] = record.pathology
        labels[BREAST_CANCER] = str(int(record.pathology == "malignant"))
    subtype = _subtype(record)
    if subtype:
        labels["label:mammography_subtype"] = subtype
    return labels


def _truth(kind: str, record: BreastRecord) -> str:
    of_kind = [f for f in record.findings if f.kind == kind]
    if not of_kind:
        return "0" if kind in record.absent else ""
    if kind not in (CALCIFICATION, LYMPH_NODE) or any(f.suspicious for f in of_kind):
        return "1"
    return "0" if all(f.suspicious is False for f in of_kind) else ""


def _subtype(record: BreastRecord) -> str:
    present = {f.kind for f in record.findings} & {MASS, CALCIFICATION}
    if present:
        return "both" if len(present) > 1 else next(iter(present))
    return "none" if {MASS, CALCIFICATION} <= set(record.absent) else ""


def side_of(value: str) -> str:
    """Read L, R, LEFT or RIGHT; "" for anything else."""
    return {"L": "L", "LEFT": "L", "R": "R", "RIGHT": "R"}.get(value.strip().upper(), "")


def composition_of(value: str) -> str:
    """Read A to D, 1 to 4 or "DENSITY C"; "" for what is none of them."""
    letter = value.strip().upper().removeprefix("DENSITY").strip()
    number = number_in(letter) if letter else 0.0
    return COMPOSITIONS.get("ABCD"[int(number) - 1] if number in (1, 2, 3, 4) else letter, "")


def birads_of(value: str) -> int | None:
    """Read an assessment: "BI-RADS 4", "4", "4.0", "4a"; of several ("3; 2") the one that asks for most.

    Raises:
        MedclipError: TABLE_INVALID for what is no assessment.

    Example:
        >>> birads_of("BI-RADS 5"), birads_of("4b"), birads_of("3; 2"), birads_of("")
        (5, 4, 3, None)
    """
    if not value:
        return None
    stated = []
    for part in re.split(r"[;,]", value):
        match = re.fullmatch(r"\s*(?:BI-?RADS)?\s*([0-6])(?:\.0+)?\s*[abc]?\s*", part, re.I)
        if match is None:
            raise MedclipError(
                Reason.TABLE_INVALID, f"the assessment is {shown(value)}.", hint=number_hint(value, "Use 0 to 6.")
            )
        stated.append(int(match[1]))
    return worst_birads(stated)


def worst_birads(stated: Iterable[int | None]) -> int | None:
    """Return the assessment that asks for most; None where there is none."""
    return max((b for b in stated if b is not None), key=SUSPICION.index, default=None)


def worst_pathology(stated: Sequence[str]) -> str:
    """Return malignant before benign before normal; "" where nothing is stated."""
    return next((p for p in ("malignant", "benign", "normal") if p in stated), "")


def flag_of(value: str) -> bool | None:
    """Read 0 or 1, "True" or "False"; None for an empty cell.

    Raises:
        MedclipError: TABLE_INVALID for anything else.
    """
    if not value:
        return None
    number = {"true": 1.0, "false": 0.0}.get(value.lower(), number_in(value))
    if number not in (0.0, 1.0):
        raise MedclipError(Reason.TABLE_INVALID, f"a flag is {shown(value)}.", hint="Use 0 or 1.")
    return bool(number)


def grouped(rows: Iterable[Cells], key: Sequence[str]) -> dict[tuple[str, ...], list[Cells]]:
    """Return the rows by the cells that name an image, in the order in which they come."""
    groups: dict[tuple[str, ...], list[Cells]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(k, "") for k in key), []).append(row)
    return groups


def images_of(
    rows: Sequence[Cells], key: Sequence[str], read: Callable[[Sequence[Cells]], MammogramRow | None]
) -> tuple[MammogramRow, ...]:
    """Read one image after the other.

    Args:
        rows: Rows of the set's table.
        key: Columns that name an image; without one each row is an image.
        read: Function that reads the rows of an image; None from it sets the image aside.

    Raises:
        MedclipError: What `read` raises, with the number of the image's first row.
    """
    number: dict[int, int] = {id(row): n for n, row in enumerate(rows, 1)}
    images = []
    for of_image in grouped(rows, key).values() if key else ([row] for row in rows):
        try:
            images.append(read(of_image))
        except MedclipError as e:
            at = number[id(of_image[0])]
            raise MedclipError(e.reason, f"row {at}: {e.message}", hint=e.hint) from None
    return tuple(image for image in images if image is not None)


def one_of(rows: Sequence[Cells], column: str) -> str:
    """Return what the rows of one image state in a column, the first that is not empty."""
    return next((row[column] for row in rows if row.get(column)), "")
