"""The table that shards are built from: one row per image to store, checked as a whole before anything is read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from medclip.dicom.header.safe_header import MAX_AGE_YEARS
from medclip.errors import MedclipError, Reason
from medclip.files.tables.cells import DAYS_EXPECTED, day_of, shown
from medclip.files.tables.manifest import MPP_EXPECTED, parse_mpp
from medclip.files.tables.read_table import read_table
from medclip.files.tables.table import close_names, listed, number_hint, number_in
from medclip.modalities import ModalityFacts
from medclip.sample import VIEW_KINDS, Modality, ViewType, every_modality, modality_of_name
from medclip.shards.sample_json import TEXTS_BY_ROLE
from medclip.shards.writing.regions import boxes_in, check_number
from medclip.text.captions.record import CaptionRecord, Region
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.task import EVENT, FIELDS, FOLLOWUP, Task, outcome_of

GENERIC = "generic"
COLUMNS = (
    "file",
    "patient",
    "modality",
    "adapter",
    "split",
    "view",
    "view_kind",
    "laterality",
    "age",
    "sex",
    "mpp_um",
    "caption",
    "captions",
    "report",
    *TEXTS_BY_ROLE,
    "regions",
    "region_masks",
    "study",
    "exam_date",
    "source",
    "license",
    "stratum",
)
"""Columns that mean something; `label:TASK` and `label:TASK:CLASS` come on top, others are ignored."""

_SEX = {"M": "M", "MALE": "M", "F": "F", "FEMALE": "F"}
_SIDE = {"L": "L", "LEFT": "L", "R": "R", "RIGHT": "R"}
_EYE = _SIDE | {"OD": "R", "OS": "L"}
"""Oculus dexter and sinister."""
UNCERTAIN = -1.0
"""What CheXpert writes where a report leaves a finding open; taken as not known."""
_TRUTHS = {"true": 1.0, "false": 0.0}
"""What a column of truth values becomes as text."""
_ADAPTERS = ("", "auto", GENERIC)


@dataclass(frozen=True)
class ShardRow:
    """One row, understood."""

    number: int
    """1 for the first row under the header."""
    file: str
    """As the table writes it."""
    path: Path
    patient: str
    """The table's own identifier: never leaves this process unhashed."""
    split: str | None
    record: CaptionRecord
    source: str
    license: str
    mpp_um: float | None = None
    """Micrometres per pixel of a slide that does not say."""
    study: str = ""
    """The table's own name of the examination, as unhashed as `patient`; "" where it gives none."""
    exam_date: date | None = None
    """Never leaves this process: samples know the days between examinations only."""
    view_kind: str = VIEW_KINDS[0]
    """How a mammogram was made."""
    uncertain: tuple[tuple[str, str], ...] = ()
    """Task and class of each label that is -1: left out of the record."""
    stratum: str = ""
    """What training draws it by, beside its source, such as its finding."""
    regions: tuple[Region, ...] = ()
    """Boxes in pixels of the file, of what the texts name."""
    region_masks: tuple[Path, ...] = ()
    """Masks of the same."""
    not_understood: Mapping[str, str] = field(default_factory=dict)
    """Cells of view, laterality and sex that are neither blank nor known, as written. A view is kept nevertheless."""

    @property
    def exam(self) -> str:
        """Name of its examination, of this patient: tables that number each patient's studies from 1 are common.

        "" where the table names neither study nor date.
        """
        name = self.study or (self.exam_date.isoformat() if self.exam_date else "")
        return f"{self.patient}\0{name}" if name else ""

    @property
    def stated_view(self) -> ViewType | None:
        """What the row states of a mammogram's view; None for other images."""
        if self.record.modality is not Modality.MAMMOGRAPHY:
            return None
        return ViewType(self.record.laterality or "", self.record.view or "", self.view_kind)


@dataclass(frozen=True)
class ShardTable:
    """A whole table, understood."""

    rows: tuple[ShardRow, ...]
    columns: tuple[str, ...]
    """Columns that are used."""
    ignored: tuple[str, ...]
    patient_from: str
    where: str
    """Its name in errors."""


def read_shard_table(
    table: Any, *, folder: Path | None = None, patient_from: str | None = None, tasks: Sequence[Task] = ()
) -> ShardTable:
    """Read and check a table.

    Args:
        table: Path of a CSV, TSV or Parquet file, whatever its suffix, or any data frame that narwhals knows.
        folder: Folder that relative files are relative to; the table's own folder where None (the current one for a
            frame).
        patient_from: Column that names the patient instead of `patient`; "file" says that every file is a patient of
            its own, which must be said because it cannot be seen.
        tasks: Further tasks that label columns may be of, beside those of the vocabulary.

    Raises:
        MedclipError: TABLE_INVALID naming the row and the column; and what reading any table raises.
    """
    patient_column = patient_from or "patient"
    read = read_table(table).with_names((*COLUMNS, patient_column))
    header, where = read.names, read.where
    base = folder or (read.path.parent if read.path else Path())
    labels = label_columns(header, where, tasks)
    need_columns(header, patient_column, where)
    used = tuple(c for c in header if c in COLUMNS or c == patient_column or c.startswith("label:"))
    rows = []
    for number, cell in enumerate(read.rows(), 1):
        try:
            rows.append(_row(number, cell, base, patient_column, labels))
        except MedclipError as e:
            raise MedclipError(e.reason, f"row {number}: {e.message}", where=where, hint=e.hint) from None
    refuse_repeats(
        [(r.number, r.path, r.record.generic) for r in rows],
        where,
        "Keep one row for each file, and at most one more with adapter=generic.",
    )
    return ShardTable(tuple(rows), used, tuple(c for c in header if c not in used), patient_column, where)


def need_columns(header: Sequence[str], patient_column: str, where: str) -> None:
    """Refuse a table that does not name its files and patients.

    Raises:
        MedclipError: TABLE_INVALID naming the columns that were found.
    """
    for needed, remedy in (
        ("file", "Add a column `file` with the path of each image."),
        (
            patient_column,
            "Splits are made by patient: add a column `patient`, name another with --patient COLUMN, or say "
            "--patient file if every file is a patient of its own.",
        ),
    ):
        if needed not in header:
            raise MedclipError(
                Reason.TABLE_INVALID,
                f"there is no column {needed!r}. {listed(header)}",
                where=where,
                hint=f"{close_names(needed, header)} {remedy}".strip(),
            )


def file_and_patient(cell: Mapping[str, str], patient_column: str) -> tuple[str, str]:
    """Return the cells that no row may lack.

    Raises:
        MedclipError: TABLE_INVALID where one is empty.
    """
    file, patient = cell.get("file", ""), cell.get(patient_column, "")
    if not file:
        raise MedclipError(Reason.TABLE_INVALID, "`file` is empty.")
    if not patient:
        raise MedclipError(Reason.TABLE_INVALID, f"`{patient_column}` is empty.", hint="Every image needs its patient.")
    return file, patient


def _row(
    number: int, cell: Mapping[str, str], base: Path, patient_column: str, labels: Mapping[str, tuple[Task, str | None]]
) -> ShardRow:
    file, patient = file_and_patient(cell, patient_column)
    adapter = cell.get("adapter", "").lower()
    if adapter not in _ADAPTERS:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"`adapter` is {shown(adapter)}.",
            hint="Leave it blank, or say generic for the plain rendering.",
        )
    modality = modality_named(cell.get("modality", ""))
    view = cell.get("view", "").upper() or None
    facts = ModalityFacts("") if modality is None else modality.facts
    understood = {
        "view": view if view in facts.views else None,
        "laterality": (_EYE if facts.paired_organ == "eye" else _SIDE).get(cell.get("laterality", "").upper()),
        "sex": _SEX.get(cell.get("sex", "").upper()),
    }
    by_role: dict[str, Any] = {name: _lines(cell.get(name, "")) for name in TEXTS_BY_ROLE}
    record = CaptionRecord(
        modality=modality,
        view=view,
        laterality=understood["laterality"],
        age_years=_age(cell.get("age", "")),
        sex=understood["sex"],
        labels=labels_in(cell, labels),
        texts=_texts(cell),
        report=cell.get("report", "").strip() or None,
        generic=adapter == GENERIC,
        **by_role,
    )
    if record.modality is None and not record.generic:
        raise MedclipError(
            Reason.TABLE_INVALID,
            "`modality` is empty.",
            hint=f"Say one of: {', '.join(every_modality())}; or adapter=generic.",
        )
    split = cell.get("split", "").lower() or None
    if split is not None and not split.replace("_", "").isalnum():
        raise MedclipError(Reason.TABLE_INVALID, "`split` holds more than letters, digits and underscores.")
    try:
        mpp = parse_mpp(cell.get("mpp_um", ""))
    except ValueError:
        raise MedclipError(
            Reason.TABLE_INVALID,
            "`mpp_um` is not understood.",
            hint=number_hint(cell["mpp_um"], f"Use {MPP_EXPECTED}."),
        ) from None
    masks = tuple(base / name for name in _lines(cell.get("region_masks", "").replace(";", "\n")))
    check_number(len(masks), "region_masks")
    source, licence = cell.get("source", ""), cell.get("license", "")
    return ShardRow(
        number,
        file,
        base / file,
        patient,
        split,
        record,
        source,
        licence,
        mpp,
        cell.get("study", ""),
        _date(cell.get("exam_date", "")),
        _view_kind(cell.get("view_kind", "")),
        tuple(
            (t.name, c)
            for column, (t, c) in labels.items()
            if c and t.rules.independent and number_in(cell.get(column, "")) == UNCERTAIN
        ),
        cell.get("stratum", ""),
        boxes_in(cell.get("regions", "")),
        masks,
        {column: cell[column] for column, value in understood.items() if cell.get(column) and value is None},
    )


def _date(value: str) -> date | None:
    try:
        return day_of(value)
    except ValueError:
        raise MedclipError(
            Reason.TABLE_INVALID, f"`exam_date` is {shown(value)}.", hint=f"Use {DAYS_EXPECTED}."
        ) from None


def _view_kind(value: str) -> str:
    kind = value.strip().lower() or VIEW_KINDS[0]
    if kind not in VIEW_KINDS:
        raise MedclipError(
            Reason.TABLE_INVALID, f"`view_kind` is {shown(value)}.", hint=f"Use one of: {', '.join(VIEW_KINDS)}."
        )
    return kind


def label_columns(header: Iterable[str], where: str, tasks: Sequence[Task]) -> dict[str, tuple[Task, str | None]]:
    """Return task and class of each column of labels. Raises as `read_shard_table`."""
    tasks_by_name = {task.name: task for task in tasks}
    of_columns: dict[str, tuple[Task, str | None]] = {}
    for column in header:
        if not column.startswith("label:"):
            continue
        _, task_name, *rest = column.split(":")
        try:
            task = tasks_by_name.get(task_name) or load_task(task_name)
            if task.rules.timed:
                of_columns[column] = (task, _outcome_field(task, rest))
                continue
            class_name = task.class_named(rest[0]).name if rest else None
        except MedclipError as e:
            raise MedclipError(
                Reason.TABLE_INVALID, f"column {column}: {e.message}", where=where, hint=e.hint
            ) from None
        if task.rules.independent != (len(rest) == 1):
            raise MedclipError(
                Reason.TABLE_INVALID,
                f"column {column} does not fit a {task.kind} task.",
                where=where,
                hint=f"Use {task.rules.labels.format(task=task_name)}.",
            )
        of_columns[column] = (task, class_name)
    return of_columns


def _outcome_field(task: Task, rest: Sequence[str]) -> str:
    if len(rest) == 1 and rest[0] in FIELDS:
        return rest[0]
    columns = " and ".join(f"label:{task.name}:{field}" for field in FIELDS)
    raise MedclipError(Reason.TABLE_INVALID, "a risk is labelled with whole months.", hint=f"Use {columns}.")


def labels_in(
    cell: Mapping[str, str], columns: Mapping[str, tuple[Task, str | None]]
) -> dict[str, str | dict[str, int]]:
    """Read the labels of a row, its columns as `label_columns` has them. Raises as `read_shard_table`."""
    labels: dict[str, str | dict[str, int]] = {}
    for column, (task, class_name) in columns.items():
        value = cell.get(column, "")
        if not value:
            continue
        if class_name is None:
            names = [c.name for c in task.classes]
            if value not in names:
                raise MedclipError(
                    Reason.TABLE_INVALID,
                    f"{column} is {shown(value)}, which is no class of the task.",
                    hint=f"It has: {', '.join(names)}.",
                )
            labels[task.name] = value
            continue
        if task.rules.timed:
            months = labels.setdefault(task.name, {})
            assert isinstance(months, dict)
            months[class_name] = _months(column, value)
            continue
        number = _TRUTHS.get(value.casefold(), number_in(value))
        if number == UNCERTAIN:
            continue
        if number not in (0.0, 1.0):
            raise MedclipError(
                Reason.TABLE_INVALID,
                f"{column} is {shown(value)}.",
                hint=number_hint(value, "Use 1, 0, -1 for uncertain, or leave it blank."),
            )
        of_task = labels.setdefault(task.name, {})
        assert isinstance(of_task, dict)
        of_task[class_name] = int(number)
    for task in {task.name: task for task, _ in columns.values() if task.rules.timed}.values():
        months = labels.get(task.name, {})
        assert isinstance(months, dict)
        if months:
            labels[task.name] = outcome_of(months.get(EVENT), months.get(FOLLOWUP))
    return labels


def _months(column: str, value: str) -> int:
    months = number_in(value)
    if not months.is_integer():
        raise MedclipError(
            Reason.TABLE_INVALID, f"{column} is {shown(value)}.", hint=number_hint(value, "Use whole months, or blank.")
        )
    return int(months)


def _texts(cell: Mapping[str, str]) -> tuple[str, ...]:
    caption = cell.get("caption", "").strip()
    return (*([caption] if caption else []), *_lines(cell.get("captions", "")))


def _lines(value: str) -> tuple[str, ...]:
    return tuple(text for line in value.split("\n") if (text := line.strip()))


def modality_named(value: str) -> Modality | None:
    """Read a cell of the column `modality`; None for an empty one.

    Raises:
        MedclipError: TABLE_INVALID naming those there are.
    """
    if not value:
        return None
    modality = modality_of_name(value)
    if modality is None:
        raise MedclipError(
            Reason.TABLE_INVALID, f"`modality` is {shown(value)}.", hint=f"Use one of: {', '.join(every_modality())}."
        )
    return modality


def _age(value: str) -> float | None:
    """Read years, 90 at most (`MAX_AGE_YEARS`); also the DICOM form 054Y, 018M, 006W, 010D."""
    if not value:
        return None
    unit = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}.get(value[-1].upper(), 0.0)
    years = number_in(value[:-1]) * unit if unit else number_in(value)
    if not 0 <= years <= 130:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"`age` is {shown(value)}.",
            hint=number_hint(value, "Use years, or the DICOM form 054Y."),
        )
    return min(round(years, 3), MAX_AGE_YEARS)


def refuse_repeats(files: Iterable[tuple[int, Path, bool]], where: str, hint: str) -> None:
    """Refuse a file that stands twice, however its path is spelt.

    Args:
        files: Number of each row, the path of its file, and whether it is read as the generic rendering.
        where: The table, for the error.
        hint: Sentence that says what to do about it.

    Raises:
        MedclipError: TABLE_INVALID naming two of the rows.
    """
    seen: dict[tuple[str, bool], int] = {}
    again = []
    for number, path, is_generic in files:
        first = seen.setdefault((os.path.realpath(path), is_generic), number)
        if first != number:
            again.append((first, number))
    if again:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"{len(again)} row{'s name files' if len(again) > 1 else ' names a file'} listed more than once, e.g. "
            f"rows {again[0][0]} and {again[0][1]}.",
            where=where,
            hint=hint,
        )
