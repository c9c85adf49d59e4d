"""The user's table of labelled files, understood: units with their patients, and what the labels mean."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.labels import read_labels, read_masks
from medclip.errors import MedclipError, Reason
from medclip.files.grouping.studies import parse_modality
from medclip.files.pseudonyms import keyed_hash
from medclip.files.tables.cells import shown
from medclip.files.tables.read_table import read_table
from medclip.sample import Modality, every_modality, spoken
from medclip.shards.writing.table import GENERIC, file_and_patient, modality_named, need_columns, refuse_repeats
from medclip.text.vocabulary.task import Task

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""What a cell of the column `split` may say, and what it means."""
_COLUMNS = ("file", "modality", "split", "adapter")


@dataclass(frozen=True)
class LabelledUnit:
    """One labelled row: a file, or the folder of one series, slide or record."""

    number: int
    """Row of the table, 1 for the first under the header."""
    path: Path
    patient: str
    """Keyed hash of the table's own identifier."""
    modality: Modality
    split: str | None
    """train, val or test; None where the table does not say."""
    target: int | tuple[float | None, ...]
    """Class index (multi-class), or 1, 0 and None (not known) for each class (multi-label); 0 where it has a mask."""
    file: str = ""
    """As the table writes it: what draws are ordered by, so that they depend on no machine and on no key."""
    mask: Path | None = None
    """File of its mask, where maps are learned."""


@dataclass(frozen=True)
class AdaptTable:
    """A whole table, understood."""

    units: tuple[LabelledUnit, ...]
    """The rows that have a label."""
    text: ClassText
    notes: tuple[str, ...]
    """What was left out and why; no identifier in them."""


@dataclass(frozen=True, eq=False)
class TableSource:
    """A table that somebody named, and how it is read: see `read_adapt_table`."""

    table: Any
    labels: tuple[str, ...]
    task: Task | str | Path | None = None
    modality: Modality | str | None = None
    folder: Path | None = None
    patient: str | None = None
    order: tuple[str, ...] = ()
    masks: bool = False
    """Whether the labels are files of masks."""

    def read(self, key: bytes, modality: Modality | None = None) -> AdaptTable:
        """Read it.

        Args:
            key: Identity key.
            modality: Modality of what the model takes, where the table was named with none.
        """
        return read_adapt_table(
            self.table,
            self.labels,
            task=self.task,
            modality=self.modality or modality,
            folder=self.folder,
            patient_from=self.patient,
            order=self.order,
            masks=self.masks,
            key=key,
        )

    @property
    def originals(self) -> Path | None:
        """Folder where the images may lie that were embedded."""
        return Path(self.table).parent if isinstance(self.table, str | Path) else None


def read_adapt_table(
    table: Any,
    labels: Sequence[str],
    *,
    task: Task | str | Path | None = None,
    modality: Modality | str | None = None,
    folder: Path | None = None,
    patient_from: str | None = None,
    order: Sequence[str] = (),
    masks: bool = False,
    key: bytes,
) -> AdaptTable:
    """Read a table of labelled files.

    Args:
        table: Path of a CSV, TSV or Parquet file, whatever its suffix, or any data frame that narwhals knows. It has
            the columns `file` and `patient`, those of the labels, and perhaps `modality` and `split`.
        labels: One column of class names (multi-class), or one or more of 0, 1, -1 for uncertain and blanks
            (multi-label); also `label:TASK` and `label:TASK:CLASS` as in tables for shards.
        task: A vocabulary task, its name or a task file; where None, classes and wordings are made of the table.
        modality: Modality of rows whose table says none.
        folder: Folder that relative files are relative to; the table's own folder where None.
        patient_from: Column that names the patient instead of `patient`; "file" says that every file is a patient of
            its own.
        order: Values of the column of labels from the lowest step of a scale to the highest; empty where they have no
            order, or the task has it.
        masks: Whether the labels are one column of mask files, relative as the files are.
        key: Identity key.

    Raises:
        MedclipError: MISSING_FILE, TABLE_INVALID naming row and column, WRONG_USE, NO_TASK, NOTHING_TO_DO.
    """
    patient_column = patient_from or "patient"
    read = read_table(table).with_names((*_COLUMNS, patient_column, *labels))
    header, where = read.names, read.where
    if folder is not None and not os.path.isdir(folder):
        raise MedclipError(
            Reason.MISSING_FILE,
            "there is no such folder for the table's files to be relative to.",
            where=folder,
            hint="Name another with --images, or leave it out where they are relative to the table.",
        )
    if patient_from is not None and patient_from in labels:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the column {patient_from!r} cannot name both the patients and the labels.",
            where=where,
            hint="Every class would be one patient. Name the column of patients with --patient.",
        )
    base = folder or (read.path.parent if read.path else Path())
    need_columns(header, patient_column, where)
    kept_N = np.asarray([adapter.lower() != GENERIC for adapter in read.texts("adapter")])
    numbers, used = (np.flatnonzero(kept_N) + 1).tolist(), read.take(kept_N)
    fallback = None if modality is None else parse_modality(modality)
    rows = []
    for number, cell in zip(numbers, used.rows(), strict=True):
        try:
            rows.append(_row(cell, patient_column, fallback))
        except MedclipError as e:
            raise MedclipError(e.reason, f"row {number}: {e.message}", where=where, hint=e.hint) from None
    refuse_repeats(
        [(number, base / file, False) for number, (file, _, _, _) in zip(numbers, rows, strict=True)],
        where,
        "Keep one row for each file.",
    )
    modalities = sorted({m for _, _, m, _ in rows})
    if masks:
        understood = read_masks(used, labels, base, task=task, modalities=modalities)
    else:
        understood = read_labels(
            used,
            labels,
            task=task,
            order=order,
            modalities=modalities,
            numbers=numbers,
            patients=[patient for _, patient, _, _ in rows],
        )
    units = []
    for number, (file, patient, kind, split), target in zip(numbers, rows, understood.targets, strict=True):
        if target is not None:
            _check_modality(understood.text.task, kind, number, where)
            patient = keyed_hash("patient", patient, key)
            mask = target if isinstance(target, Path) else None
            units.append(
                LabelledUnit(
                    number, base / file, patient, kind, split, 0 if isinstance(target, Path) else target, file, mask
                )
            )
    if not units:
        raise MedclipError(Reason.NOTHING_TO_DO, "no row of the table has a label.", where=where)
    left = read.num_rows - len(numbers)
    notes = [f"Rows with adapter=generic, which are not used: {left}."] if left else []
    notes += [*understood.notes, *_one_patient_a_class(units, understood.text, patient_column)]
    return AdaptTable(tuple(units), understood.text, tuple(notes))


def _one_patient_a_class(units: Sequence[LabelledUnit], text: ClassText, column: str) -> list[str]:
    """Return the sentence that the column of patients may be one of classes."""
    pairs = {(u.patient, u.target) for u in units}
    num_patients = len({u.patient for u in units})
    if not text.rules.one_answer or len(units) == num_patients or not len(pairs) == num_patients == len(text.names):
        return []
    return [f"Every class has one patient only, so nobody can be tested on: does {column!r} really name the patients?"]


def _row(
    cell: Mapping[str, str], patient_column: str, fallback: Modality | None
) -> tuple[str, str, Modality, str | None]:
    file, patient = file_and_patient(cell, patient_column)
    modality = modality_named(cell.get("modality", "")) or fallback
    if modality is None:
        raise MedclipError(
            Reason.TABLE_INVALID,
            "nothing says which modality it is.",
            hint=f"Add a column `modality`, or say --modality with one of: {', '.join(every_modality())}.",
        )
    split = cell.get("split", "").lower()
    if split and split not in SPLITS:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"`split` is {shown(split)}.",
            hint="Use train, val or test, or leave it blank to have the patient put on a side.",
        )
    return file, patient, modality, SPLITS.get(split)


def _check_modality(task: Task, modality: Modality, number: int, where: str) -> None:
    if task.modalities and modality not in task.modalities:
        about = ", ".join(spoken(m) for m in task.modalities)
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"row {number} is about {spoken(modality)}, and the task {task.name} is about {about}.",
            where=where,
            hint="Name another task, or leave --task out to make one of the table's labels.",
        )
