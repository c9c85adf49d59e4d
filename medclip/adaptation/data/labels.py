"""From cells to targets: which columns answer the question, and what each of their values means."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medclip.adaptation.data.class_text import ClassText, class_text
from medclip.errors import MedclipError, Reason
from medclip.files.tables.cells import shown
from medclip.files.tables.table import Table, number_hint, number_in
from medclip.shards.writing.table import UNCERTAIN
from medclip.text.vocabulary.find_task import (
    class_said,
    find_task,
    made_of_columns,
    made_of_masks,
    made_of_values,
    plain,
)
from medclip.text.vocabulary.task import Task

PREFIX = "label:"
MAX_CLASSES = 50
_FEWEST_EACH = 2
"""Rows that a value must have on average before a column of many values counts as one of classes."""
_MANY = 12
_MOST_SHOWN = 20
_WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
Target = int | tuple[float | None, ...] | Path | None
"""Class index; or 1, 0 and None for each class; or the file of a mask; None alone for a row that says nothing."""


@dataclass(frozen=True)
class Labels:
    """What the columns say, row by row."""

    text: ClassText
    targets: tuple[Target, ...]
    """One for each row of the table."""
    notes: tuple[str, ...]


def read_labels(
    table: Table,
    labels: Sequence[str],
    *,
    task: Task | str | Path | None,
    order: Sequence[str] = (),
    modalities: Sequence[str],
    numbers: Sequence[int],
    patients: Sequence[str] = (),
) -> Labels:
    """Understand the label columns of a table.

    Args:
        table: The rows that are used.
        labels: The columns asked for: one of class names, or some of 0 and 1. `label:TASK` alone stands for all
            `label:TASK:CLASS` columns.
        task: The task, where it is not made of the columns themselves.
        order: Values from the lowest step of a scale to the highest; empty where they have no order, or the task has
            it.
        modalities: Modalities of the images, for the templates of a task that is made.
        numbers: Numbers of the rows, as the user counts them, for errors.
        patients: Patient of each row: a value that only one patient has may be a name, and is not shown.

    Raises:
        MedclipError: WRONG_USE, NO_TASK; TABLE_INVALID for a column that is not there or a value that is not known;
            WRONG_USE for one class only, and for an order that does not fit.
    """
    columns = _columns(table, labels)
    chosen = _task(columns, task)
    several = chosen.rules.independent if chosen else len(columns) > 1 or _is_binary(table, columns[0])
    if order and (several or chosen):
        raise MedclipError(
            Reason.WRONG_USE,
            "an order of values is of one column of steps, which no task says the classes of.",
            where=table.where,
            hint="Leave --order out" + (": the task file says which classes are steps." if chosen else "."),
        )
    if several:
        return _multilabel(table, columns, chosen, modalities, numbers)
    return _multiclass(table, columns, chosen, order, modalities, numbers, patients)


def read_masks(
    table: Table, labels: Sequence[str], base: Path, *, task: Task | str | Path | None, modalities: Sequence[str]
) -> Labels:
    """Understand a column that names files of masks.

    Args:
        table: The rows that are used.
        labels: The column; a structure is called as it is, where no task says more.
        base: Folder that relative files are relative to.
        task: The task of the kind `map`, where it is not made of the column.
        modalities: Modalities of the images.

    Raises:
        MedclipError: WRONG_USE for several columns, and for a task of another kind or of several structures;
            TABLE_INVALID for a column that is not there; NOTHING_TO_DO where no row names a mask.
    """
    if len(labels) != 1:
        raise MedclipError(
            Reason.WRONG_USE,
            f"a map is learned of one column of masks, not of {len(labels)}.",
            hint="Name one with --label; a structure more is an adaptation more.",
        )
    column = table.need(labels[0], "--label names the column of mask files")
    chosen = made_of_masks(column, modalities) if task is None else find_task(task)
    if not chosen.rules.placed or len(chosen.classes) != 1:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the task {chosen.name} is not of the kind map with one structure.",
            hint="Leave --task out: the structure is then called as the column is.",
        )
    cells = [cell.strip() for cell in table.texts(column)]
    if not any(cells):
        raise MedclipError(Reason.NOTHING_TO_DO, f"no row names a mask in {column!r}.", where=table.where)
    empty = cells.count("")
    notes = (f"Rows without a mask, which are not used: {empty}.",) if empty else ()
    return Labels(class_text(chosen), tuple(base / cell if cell else None for cell in cells), notes)


def _columns(table: Table, labels: Sequence[str]) -> list[str]:
    header = table.names
    columns_found: list[str] = []
    for label in labels:
        inside = [c for c in header if c.startswith(f"{label}:")] if label.startswith(PREFIX) else []
        columns_found += inside if inside and label not in header else [table.need(label, "--label names one")]
    if not columns_found:
        raise MedclipError(Reason.WRONG_USE, "no column of labels was named.", hint="Name one with --label COLUMN.")
    return list(dict.fromkeys(columns_found))


def _task(columns: Sequence[str], task: Task | str | Path | None) -> Task | None:
    named = {c.split(":")[1] for c in columns if c.startswith(PREFIX)}
    if task is not None:
        return find_task(task)
    if len(named) > 1 or (named and not all(c.startswith(PREFIX) for c in columns)):
        raise MedclipError(
            Reason.WRONG_USE,
            f"the columns {', '.join(columns)} belong to several tasks.",
            hint="A pack is adapted to one task; run once for each.",
        )
    return find_task(next(iter(named))) if named else None


def _multiclass(
    table: Table,
    columns: Sequence[str],
    task: Task | None,
    order: Sequence[str],
    modalities: Sequence[str],
    numbers: Sequence[int],
    patients: Sequence[str],
) -> Labels:
    if len(columns) != 1:
        raise MedclipError(
            Reason.WRONG_USE,
            f"a task with one answer takes one column of class names, not {len(columns)} columns.",
            hint="Name one with --label.",
        )
    (column,), where = columns, table.where
    cells = table.texts(column)
    values = [plain(cell) for cell in cells]
    counts = Counter(value for value in values if value)
    notes = []
    if task is None:
        _refuse_many(column, counts, where)
        _need_two(sorted(counts), column, where)
        steps = _steps(order, counts, column, where)
        task, names = made_of_values(column, steps or list(counts), modalities, ordered=bool(steps))
        if not steps and not any(math.isnan(number_in(value)) for value in counts):
            notes.append(f"The column {column!r} holds numbers; each of them is taken for a class.")
    else:
        names = {}
        for number, value, cell in zip(numbers, values, cells, strict=True):
            if value and value not in names:
                class_name = class_said(task, value)
                if class_name is None:
                    quoted = repr(cell) if _like_classes(values, patients) else shown(cell)
                    raise _unknown(task, column, number, quoted, where)
                names[value] = class_name.name
    present = [c.name for c in task.classes if c.name in {names[value] for value in counts}]
    _need_two(present, column, where)
    index = {value: present.index(names[value]) for value in counts}
    absent = [c.name for c in task.classes if c.name not in present]
    notes += [f"No row has: {', '.join(absent)}; the pack does not know them."] if absent else []
    empty = values.count("")
    notes += [f"Rows without a label, which are not used: {empty}."] if empty else []
    targets = tuple(index[value] if value else None for value in values)
    return Labels(class_text(task, present), targets, tuple(notes))


def _multilabel(
    table: Table, columns: Sequence[str], task: Task | None, modalities: Sequence[str], numbers: Sequence[int]
) -> Labels:
    where = table.where
    if task is None:
        task = made_of_columns(columns, modalities)
        names = [c.name for c in task.classes]
    else:
        names = [_class_of_column(task, column, where) for column in columns]
    if len(set(names)) != len(names):
        raise MedclipError(Reason.TABLE_INVALID, "two of the columns stand for the same class.", where=where)
    rows: list[tuple[float | None, ...]] = []
    uncertain = 0
    for number, *cells in zip(numbers, *(table.texts(column) for column in columns), strict=True):
        values = [binary(cell) for cell in cells]
        for column, cell, value in zip(columns, cells, values, strict=True):
            if value not in (None, 0.0, 1.0, UNCERTAIN):
                raise MedclipError(
                    Reason.TABLE_INVALID,
                    f"row {number}: {column} is {shown(cell)}.",
                    where=where,
                    hint=number_hint(cell, "Use 1, 0, -1 for uncertain, or leave it blank."),
                )
        uncertain += values.count(UNCERTAIN)
        rows.append(tuple(None if value == UNCERTAIN else value for value in values))
    notes = [f"Labels that are -1 (uncertain), taken as not known: {uncertain}."] if uncertain else []
    empty = sum(all(v is None for v in row) for row in rows)
    notes += [f"Rows without a label, which are not used: {empty}."] if empty else []
    lacks = []
    for c, name in enumerate(names):
        seen = {row[c] for row in rows} - {None}
        if seen != {0.0, 1.0}:
            lacks.append(f"{name} ({'no 1' if seen == {0.0} else 'no 0' if seen == {1.0} else 'neither 0 nor 1'})")
    if len(lacks) == len(names):
        raise MedclipError(
            Reason.WRONG_USE,
            f"there is nothing to tell apart: the table has only one answer for {'; '.join(lacks)}.",
            where=where,
            hint="Learning takes images with and without a finding.",
        )
    notes += [f"The table has only one answer for {'; '.join(lacks)}."] if lacks else []
    targets = tuple(None if all(v is None for v in row) else row for row in rows)
    return Labels(class_text(task, names), targets, tuple(notes))


def _steps(order: Sequence[str], counts: Mapping[str, int], column: str, where: str) -> list[str]:
    """Check an order of values against the column; empty where there is none."""
    steps = [next((v for v in counts if _alike(v, plain(step))), plain(step)) for step in order]
    if not steps:
        return []
    twice = [value for value, num in Counter(steps).items() if num > 1 or not value]
    if twice or len(steps) < 2:
        what = f"names {twice[0]!r} twice" if twice and twice[0] else "has an empty step" if twice else "has one step"
        raise MedclipError(
            Reason.WRONG_USE, f"the order {what}.", hint="Name each value once, the lowest first: --order A,B,C,D."
        )
    if beyond := sorted(set(counts) - set(steps)):
        num = sum(counts[value] for value in beyond)
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"{num} of {sum(counts.values())} rows have a value of {column!r} that the order does not name.",
            where=where,
            hint="Name every step, as the table writes it; leave the cell of a row blank that is no step.",
        )
    return steps


def _alike(one: str, other: str) -> bool:
    """Whether two values are the same word, or the same number: 3 and 3.0."""
    return one == other or number_in(one) == number_in(other)


def _class_of_column(task: Task, column: str, where: str) -> str:
    wording = column.split(":")[-1] if column.startswith(PREFIX) and column.count(":") > 1 else column
    name = class_said(task, wording)
    if name is None and len(task.classes) == 1 and column.startswith(PREFIX):
        name = task.classes[0]
    if name is None:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"the column {column!r} is no class of the task {task.name}.",
            where=where,
            hint=f"It has: {', '.join(c.name for c in task.classes)}. Rename the column.",
        )
    return name.name


def _like_classes(values: Sequence[str], patients: Sequence[str]) -> bool:
    """Whether the values of a column are words that several patients each have, so that none is a name or a number."""
    whose: dict[str, set[str]] = {}
    for value, patient in zip(values, patients, strict=False):
        if value:
            whose.setdefault(value, set()).add(patient)
    words = all(value.replace(" ", "").isalpha() for value in whose)
    return words and 0 < len(whose) <= _MOST_SHOWN and min(map(len, whose.values())) >= _FEWEST_EACH


def _unknown(task: Task, column: str, number: int, quoted: str, where: str) -> MedclipError:
    return MedclipError(
        Reason.TABLE_INVALID,
        f"row {number}: {column} is {quoted}, which is no class of the task {task.name}.",
        where=where,
        hint=f"It has: {', '.join(c.name for c in task.classes)}. Leave --task out to take the classes from the table, "
        "or write a task file of your own.",
    )


def _need_two(names: Sequence[str], column: str, where: str) -> None:
    if len(names) < 2:
        only = f"only the class {names[0]!r}" if names else "no label at all"
        raise MedclipError(
            Reason.WRONG_USE,
            f"the column {column!r} has {only}; there is nothing to tell apart.",
            where=where,
            hint="Learning takes images of at least two classes.",
        )


def _refuse_many(column: str, counts: Mapping[str, int], where: str) -> None:
    """Refuse a column that looks like identifiers or measurements: its values would become classes of a pack."""
    rows = sum(counts.values())
    if len(counts) > MAX_CLASSES or (len(counts) > _MANY and rows < _FEWEST_EACH * len(counts)):
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"the column {column!r} has {len(counts)} different values in {rows} rows; that is no column of classes.",
            where=where,
            hint="Is it the right column? Turn measurements into a few classes, or into 0 and 1, first.",
        )


def _is_binary(table: Table, column: str) -> bool:
    values = {binary(text) for text in table.coded(column).values}
    return bool(values - {None}) and values <= {None, 0.0, 1.0, UNCERTAIN}


def binary(value: str) -> float | None:
    """Read 1, 0, -1, yes or no; None for an empty cell, NaN for anything else."""
    return _WORDS.get(value.casefold(), number_in(value)) if value else None
