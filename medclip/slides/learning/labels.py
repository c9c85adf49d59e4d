"""Slides of a store and a table of labels joined: what is true of each slide, whose it is, and its patches' vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.data.labels import read_labels
from medclip.errors import MedclipError, Reason
from medclip.files.pseudonyms import keyed_hash
from medclip.files.tables.read_table import read_table
from medclip.files.tables.table import PATIENTS, Table
from medclip.sample import Modality
from medclip.slides.slide_store import DONE, SlideRow, SlideStore
from medclip.text.vocabulary.task import EVENT, FOLLOWUP, Task
from medclip.text.vocabulary.task_kinds import TaskKind, kind_named
from medclip.wording import count


@dataclass(frozen=True, eq=False)
class Bags:
    """S labelled slides, read one at a time: a cohort need not fit into memory."""

    read: Callable[[int], NDArray[np.floating]]
    """Patch vectors of a slide by its number, float [N, D], N at least 1."""
    targets: NDArray
    """int64 [S], the class, for a kind of one answer; float32 [S, C] with 1, 0 and NaN where nobody knows, for one of
    findings; float64 [S, 2], months to the event (NaN: none seen) and months followed, for one of years."""
    patients: tuple[str, ...]
    """Whose each slide is."""
    names: tuple[str, ...]
    """Classes, or years of a risk, in the order of logits."""
    kind: str
    """Of the task, a row of `TASK_KINDS`."""
    keys: tuple[str, ...] = ()
    """What each slide is called in tables."""

    def __post_init__(self) -> None:
        rules = self.rules
        axes, number = (1, np.integer) if rules.one_answer else (2, np.floating)
        fits = self.targets.ndim == axes and np.issubdtype(self.targets.dtype, number)
        if fits and rules.one_answer:
            fits = bool(((self.targets >= 0) & (self.targets < len(self.names))).all())
        elif fits:
            fits = self.targets.shape[1] == (2 if rules.timed else len(self.names))
        if not fits or len(self.targets) != len(self.patients) or len(self.keys) not in (0, len(self.patients)):
            raise MedclipError(
                Reason.WRONG_USE,
                f"targets of {list(self.targets.shape)} do not fit {len(self.patients)} slides of a {self.kind} task "
                f"with {len(self.names)} answers.",
                hint="A slide has one class, a value for each finding, or two times in months.",
            )

    def __len__(self) -> int:
        return len(self.patients)

    @property
    def rules(self) -> TaskKind:
        """The row of the task's kind."""
        return kind_named(self.kind)

    @property
    def num_patients(self) -> int:
        """How many patients the slides are of."""
        return len(set(self.patients))

    @property
    def strata(self) -> NDArray[np.int64]:
        """What folds are balanced by, int64 [S]: the class; whether there is a finding; whether an event was seen."""
        if self.rules.one_answer:
            return self.targets.astype(np.int64)
        if self.rules.timed:
            return np.asarray(~np.isnan(self.targets[:, 0]), np.int64)
        return np.asarray((np.nan_to_num(self.targets) > 0).any(axis=1), np.int64)

    def select(self, rows: Sequence[int] | NDArray[np.integer]) -> Bags:
        """Return some of them, in this order."""
        chosen = [int(row) for row in rows]
        read = self.read
        return replace(
            self,
            read=lambda i: read(chosen[i]),
            targets=self.targets[chosen],
            patients=tuple(self.patients[row] for row in chosen),
            keys=tuple(self.keys[row] for row in chosen) if self.keys else (),
        )


def bags_in_memory(
    features: Sequence[NDArray[np.floating]],
    targets: NDArray,
    patients: Sequence[str],
    names: Sequence[str],
    kind: str = "multiclass",
) -> Bags:
    """Take slides whose vectors are held.

    Raises:
        MedclipError: WRONG_USE where they do not fit together.
    """
    if len(features) != len(patients) or any(f.ndim != 2 or not len(f) for f in features):
        raise MedclipError(
            Reason.WRONG_USE,
            f"{len(features)} arrays of patch vectors for {len(patients)} slides, each [patches, dimensions].",
            hint="A slide without a patch has nothing to learn from; leave it out.",
        )
    return Bags(features.__getitem__, np.asarray(targets), tuple(patients), tuple(names), kind)


_SLIDE_COLUMNS = ("slide", "file", "key", "slide_id", "image")
"""Columns that are taken for the slide, in the order in which they are looked for."""
OWN_FILE = "file"
"""Stands for the column of patients where every slide is a patient of its own."""


@dataclass(frozen=True, eq=False)
class LabelledSlides:
    """Slides with labels."""

    bags: Bags
    title: str
    """What was learned: the task's title, or that an event is foretold."""
    notes: tuple[str, ...]


def read_slide_labels(
    store: SlideStore,
    table: Any,
    labels: Sequence[str],
    *,
    patient: str | None = None,
    task: Task | str | Path | None = None,
    years: int = 0,
    key: bytes,
) -> LabelledSlides:
    """Join a table of labels with the slides of a store.

    The table's column `slide` (or file, key) holds a slide's file as the store's table has it, its name with or without
    suffix, or its key.

    Args:
        store: The slides.
        table: Path of a CSV, TSV or Parquet file, or a data frame.
        labels: One column of classes, or columns of 0 and 1; not looked at where `years` is above 0.
        patient: Column of patients; "file": every slide is a patient of its own.
        task: A task of the vocabulary or a task file; None: made of the table.
        years: K of a risk: the table's columns `event_months` and `followup_months` are learned; 0: no risk.
        key: Identity key.

    Raises:
        MedclipError: TABLE_INVALID for a table that does not name slides or patients, or names one twice;
            NOTHING_TO_DO where no slide has a label.
    """
    column = patient or PATIENTS[0]
    read = read_table(table).with_names((*_SLIDE_COLUMNS, column, EVENT, FOLLOWUP, *labels))
    place, notes = _joined(store.rows, read)
    if column != OWN_FILE:
        read.need(column, "--patient names the column of patients")
    used = place >= 0
    if not used.any():
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            "no row of the table is a slide of the store that has vectors.",
            where=read.where,
            hint="A column `slide` or `file` names each slide as the store's slides.parquet does.",
        )
    chosen, keys = read.take(used), [store.rows[row].key for row in place[used]]
    whose = keys if column == OWN_FILE else _patients(chosen, column, key)
    numbers = (np.flatnonzero(used) + 1).tolist()
    if years:
        targets, has_target, names, kind = *_times(chosen), tuple(str(y) for y in range(1, years + 1)), "risk"
        title, more = "Years to an event", ()
    else:
        understood = read_labels(
            chosen, labels, task=task, modalities=[Modality.PATHOLOGY], numbers=numbers, patients=whose
        )
        has_target = np.array([target is not None for target in understood.targets])
        kind, names, title, more = (
            understood.text.kind,
            understood.text.names,
            understood.text.task.title,
            understood.notes,
        )
        targets = _targets([t for t in understood.targets if t is not None], kind)
    rows = np.flatnonzero(has_target)
    if not len(rows):
        raise MedclipError(Reason.NOTHING_TO_DO, "no slide of the store has a label.", where=read.where)
    keys_of_rows = [keys[row] for row in rows]
    bags = Bags(
        lambda i: store.read(keys_of_rows[i]).features_ND,
        targets[rows] if years else targets,
        tuple(whose[row] for row in rows),
        tuple(names),
        kind,
        tuple(keys_of_rows),
    )
    return LabelledSlides(bags, title, (*notes, *more))


def _joined(rows: Sequence[SlideRow], table: Table) -> tuple[NDArray[np.int64], list[str]]:
    """Return the row of the store of each row of the table, -1 where there is none with vectors."""
    column = next((name for name in _SLIDE_COLUMNS if name in table.names), None)
    if column is None:
        raise MedclipError(
            Reason.TABLE_INVALID,
            "no column names the slides.",
            where=table.where,
            hint="Call it `slide` or `file`; it holds the slide's file, or its name.",
        )
    names: dict[str, set[int]] = {}
    for number, row in enumerate(rows):
        path = PurePosixPath(row.file)
        for name in {row.key, row.file, path.name, path.stem}:
            names.setdefault(name, set()).add(number)
    place = np.full(table.num_rows, -1, np.int64)
    first: dict[int, int] = {}
    num_without = num_other = 0
    for number, text in enumerate(table.texts(column)):
        fits = names.get(text) or names.get(PurePosixPath(text).name) or set()
        if len(fits) > 1:
            raise MedclipError(
                Reason.TABLE_INVALID,
                f"row {number + 1}: {count(len(fits), 'slide')} of the store have this name.",
                where=table.where,
                hint="Name slides by their path in the folder, as slides.parquet has it.",
            )
        if not fits:
            num_other += 1
            continue
        (slide,) = fits
        if slide in first:
            raise MedclipError(
                Reason.TABLE_INVALID,
                f"rows {first[slide]} and {number + 1} are of the same slide.",
                where=table.where,
                hint="Keep one row for each slide.",
            )
        first[slide] = number + 1
        if rows[slide].status == DONE:
            place[number] = slide
        else:
            num_without += 1
    notes = []
    if num_other:
        notes.append(f"Rows of the table that are no slide of the store: {num_other}.")
    if num_without:
        notes.append(f"Labelled slides without vectors, which are not used: {num_without}.")
    return place, notes


def _patients(table: Table, column: str, key: bytes) -> list[str]:
    texts = table.texts(column)
    if "" in texts:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"row {texts.index('') + 1} of the slides that are used names no patient.",
            where=table.where,
            hint="Slides of one patient must not be learned from and tested on: fill the column, or leave the row out.",
        )
    return [keyed_hash("patient", text, key) for text in texts]


def _targets(values: Sequence[Any], kind: str) -> NDArray[Any]:
    if kind_named(kind).one_answer:
        return np.array(values, np.int64)
    return np.array([[np.nan if v is None else v for v in row] for row in values], np.float32)


def _times(table: Table) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return months to the event and months followed, [N, 2], and which rows have one of them."""
    for name in (EVENT, FOLLOWUP):
        table.need(name, "a risk is learned from months to the event and months followed")
    event_N, followup_N = table.numbers(EVENT, "months"), table.numbers(FOLLOWUP, "months")
    return np.stack([event_N, followup_N], axis=1), ~(np.isnan(event_N) & np.isnan(followup_N))
