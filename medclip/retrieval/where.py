"""Which files a search looks at: conditions on columns and on header values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.header.safe_header import ALLOWED
from medclip.embeddings.open_embeddings import Embeddings
from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.runs.rows import ECG_FLAGS
from medclip.sample import modality_of_name
from medclip.slides.store.slide_store import SLIDES, SlideRow, SlideStore
from medclip.wording import list_of

COLUMNS = ("row", "study", "patient", "modality", "kind", "laterality", "view", "body_part", "burned_in")
"""Columns of units.parquet that conditions may name."""
HEADERS = tuple(entry.name for entry in ALLOWED if entry.name not in COLUMNS)
"""Header values that they may name."""
SLIDE_COLUMNS = tuple(field.name for field in fields(SlideRow) if field.name not in ("message", "notes"))
"""Columns of slides.parquet that conditions on slides may name."""
_MANY = ("study", "patient", "row", "key", "file", "sha256")
"""Columns whose values may name somebody, or are too many to be listed."""
_CONDITION = re.compile(r"\s*([\w-]+)\s*(!=|>=|<=|=|<|>)\s*(.*?)\s*", re.DOTALL)
Where = str | Sequence[str] | Mapping[str, Any]
"""One condition, several, or a mapping of columns to a value or values."""


@dataclass(frozen=True)
class Condition:
    """What the value of a column must be."""

    column: str
    relation: str
    value: str

    def holds(self, value: Any) -> bool:
        """Whether a value fits: as a number where both are, else as text without case.

        Of a list any member; with != none may be equal. A flag of an ECG fits with its leads and without.
        """
        if isinstance(value, list):
            return (all if self.relation == "!=" else any)(self.holds(one) for one in value)
        written = "" if value is None else str(value).lower()
        asked = self.value.lower()
        if self.column == ECG_FLAGS and ":" not in asked:
            written = written.partition(":")[0]
        if self.column == "modality" and (modality := modality_of_name(self.value)) is not None:
            asked = str(modality)
        a, b = _number(written), _number(asked)
        if self.relation in ("=", "!="):
            equal = written == asked or (a is not None and a == b)
            return equal == (self.relation == "=")
        if a is None or b is None:
            return False
        return {"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[self.relation]

    def __str__(self) -> str:
        return f"{self.column}{self.relation}{self.value}"


def read_conditions(where: Where, known: Sequence[str] = (*COLUMNS, *HEADERS)) -> tuple[Condition, ...]:
    """Read conditions such as "modality=ct" and "age_years>=60".

    Args:
        where: Texts of a column, one of = != < <= > >=, and a value; in a mapping all are of equality, and a list in
            the place of a value takes any of it.
        known: Names of columns that may be asked for.

    Raises:
        MedclipError: WRONG_USE for a text that is no condition, and for a column that there is none of.

    Example:
        >>> [str(c) for c in read_conditions({"modality": ["ct", "mri"], "sex": "F"})]
        ['modality=ct', 'modality=mri', 'sex=F']
    """
    if isinstance(where, Mapping):
        pairs = ((name, value if isinstance(value, (list, tuple, set)) else [value]) for name, value in where.items())
        conditions = [Condition(str(name), "=", str(value)) for name, values in pairs for value in values]
    else:
        conditions = [_read(text) for text in ([where] if isinstance(where, str) else where)]
    for condition in conditions:
        if condition.column not in known:
            raise MedclipError(
                Reason.WRONG_USE,
                f"there is no column {condition.column!r} to choose by.",
                hint=did_you_mean(condition.column, known, "Columns are"),
            )
    return tuple(conditions)


def rows_where(embeddings: Embeddings, conditions: Sequence[Condition]) -> NDArray[np.int64]:
    """Return the units that all conditions hold for, by the row of their first file.

    Several equalities of one column hold where any of them does.

    Raises:
        MedclipError: NOTHING_TO_DO where none is left, naming the values that there are.
    """
    names = [name for name in COLUMNS if name != "row" and any(c.column == name for c in conditions)]
    if any(c.column in HEADERS for c in conditions):
        names.append("headers")
    table = embeddings.columns("units", ["row", *names])
    rows = table.column("row").to_numpy()
    return rows[_passing(len(rows), conditions, partial(_coded, table), embeddings.folder, "image", "units.parquet")]


def slides_where(store: SlideStore, conditions: Sequence[Condition]) -> NDArray[np.bool_]:
    """Return which rows of a store of slides all conditions hold for; bool [S]. As `rows_where`."""

    def coded(column: str) -> tuple[NDArray[np.int64], list[Any]]:
        return np.arange(len(store.rows)), [getattr(row, column) for row in store.rows]

    return _passing(len(store.rows), conditions, coded, store.folder, "slide", SLIDES)


def _passing(
    num: int,
    conditions: Sequence[Condition],
    coded: Callable[[str], tuple[NDArray[np.int64], list[Any]]],
    folder: Path,
    noun: str,
    table: str,
) -> NDArray[np.bool_]:
    """Return which of the rows of a table conditions hold for; bool [N]."""
    passing = np.ones(num, bool)
    for column in dict.fromkeys(c.column for c in conditions):
        of_column = [c for c in conditions if c.column == column]
        codes, values = coded(column)
        fits = np.array([_fits(value, of_column) for value in values], bool)
        if not fits.any():
            raise _nothing(folder, of_column, values, noun, table)
        passing &= fits[codes]
    if not passing.any():
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            f"no {noun} of this folder has {list_of([str(c) for c in conditions])}.",
            where=folder,
            hint="Each holds for some, but not all for one.",
        )
    return passing


def _fits(value: Any, conditions: Sequence[Condition]) -> bool:
    equal = [c.holds(value) for c in conditions if c.relation == "="]
    return all(c.holds(value) for c in conditions if c.relation != "=") and (any(equal) or not equal)


def _coded(table: Any, column: str) -> tuple[NDArray[np.int64], list[Any]]:
    """Return the number of each row's value, and the values."""
    name = "headers" if column in HEADERS else column
    coded = table.column(name).combine_chunks().dictionary_encode(null_encoding="encode")
    values = coded.dictionary.to_pylist()
    if name == "headers":
        values = [json.loads(text).get(column) if text else None for text in values]
    return coded.indices.to_numpy(zero_copy_only=False), values


def _nothing(
    folder: Path, conditions: Sequence[Condition], values: Sequence[Any], noun: str, table: str
) -> MedclipError:
    column = conditions[0].column
    single = (one for value in values for one in (value if isinstance(value, list) else [value]))
    texts = sorted({str(value) for value in single if value not in (None, "")})
    hint = f"The folder states no {column} for any {noun}."
    either = "or" if all(c.relation == "=" for c in conditions) else "and"
    if texts:
        known = did_you_mean(conditions[0].value, texts, f"Values of {column} are")
        hint = known if column not in _MANY else f"See the column {column} of {table}."
    return MedclipError(
        Reason.NOTHING_TO_DO,
        f"no {noun} of this folder has {list_of([str(c) for c in conditions], either)}.",
        where=folder,
        hint=hint,
    )


def _read(text: str) -> Condition:
    read = _CONDITION.fullmatch(text)
    if read is None:
        raise MedclipError(
            Reason.WRONG_USE, f"{text!r} is no condition.", hint="Write a column and its value, such as modality=ct."
        )
    return Condition(*read.groups())


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
