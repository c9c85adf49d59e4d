"""`concept`: pairs whose image shows what is wanted, by a table of labels such as those that clusters inherit.

The table has the columns of BIOMEDICA's annotation (Lozano et al. 2025): key, cluster, panel_type, panel_subtype, and
primary and secondary, a list of concepts each. What it has no row for is dropped, and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, model_validator

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.tables.read_table import read_table
from medclip.files.tables.table import TextForm, plain_name
from medclip.pairs.pile import Pile
from medclip.pairs.selection.steps import Context, FilterSettings, Verdict
from medclip.wording import count

if TYPE_CHECKING:
    from numpy.typing import NDArray

Column = Literal["primary", "secondary", "panel_type", "panel_subtype", "cluster"]
_COLUMNS = ("key", "cluster", "panel_type", "panel_subtype", "primary", "secondary")


@dataclass(frozen=True)
class Labels:
    """A table of labels by the keys of pairs."""

    row_of: Mapping[str, int]
    columns: Mapping[str, Sequence[str]]
    """Cells of each row: several labels a line each."""
    where: str

    def cells(self, column: str, keys: Sequence[str]) -> list[str]:
        """Return the cells of some keys; "" for one that has no row."""
        cells, row_of = (*self.columns[column], ""), self.row_of
        return [cells[row_of.get(key, -1)] for key in keys]


class ConceptSettings(FilterSettings):
    """What `concept` is asked."""

    labels: Path
    """Table of labels, relative to the file of steps."""
    column: Column = "primary"
    """Column of the table that is looked at."""
    keep: tuple[str, ...] = ()
    """Labels of which a pair has one at least; any where there are none."""
    drop: tuple[str, ...] = Field(default=())
    """Labels of which a pair has none; they go before those of `keep`."""

    def places(self) -> tuple[Path, ...]:
        """Return the table of labels."""
        return (self.labels,)

    @model_validator(mode="after")
    def _check_lists(self) -> ConceptSettings:
        if not self.keep and not self.drop:
            raise ValueError("name labels under keep or drop")
        return self


def concept(pile: Pile, rows_M: NDArray[np.int64], settings: ConceptSettings, context: Context, number: int) -> Verdict:
    """Keep pairs by their labels. Case, blanks and dashes of labels do not count.

    Returns:
        Verdict whose value is how many labels of `drop` a pair has, below 0, where it has one; else how many of `keep`,
        or how many labels where any is kept; and nothing where the table has no row for it.
    """
    labels = read_labels(context.folder / settings.labels, context.form)
    if settings.column not in labels.columns:
        hint = did_you_mean(settings.column, labels.columns, "Columns are")
        message = f"there is no column {settings.column!r} in the table of labels."
        raise MedclipError(Reason.TABLE_INVALID, message, where=labels.where, hint=hint)
    names = {plain_name(line): line for cell in set(labels.columns[settings.column]) for line in cell.split("\n")}
    for name in (*settings.keep, *settings.drop):
        if plain_name(name) not in names:
            hint = did_you_mean(name, sorted(filter(None, names.values())), "Labels are")
            message = f"no pair has the label {name!r}."
            raise MedclipError(Reason.RECIPE_INVALID, f"concept: {message}", where=labels.where, hint=hint)
    keep, drop = (frozenset(map(plain_name, listed)) for listed in (settings.keep, settings.drop))
    value_of: dict[str, int] = {}
    keys = pile.cells("key", rows_M)
    has_row_M = np.array([key in labels.row_of for key in keys], bool)
    cells = labels.cells(settings.column, keys)
    for cell in set(cells):
        labels_of_cell = {plain_name(line) for line in cell.split("\n")}
        value_of[cell] = -len(drop & labels_of_cell) or len(labels_of_cell & keep if keep else labels_of_cell - {""})
    value_M = np.where(has_row_M, [value_of[cell] for cell in cells], np.nan)
    kept_M = value_M > 0 if keep else value_M >= 0  # nothing is neither
    num = int((~has_row_M).sum())
    notes = (f"{count(num, 'pair')} without a row in the table of labels; dropped.",) if num else ()
    return Verdict(kept_M, value_M, facts={"without_labels": num}, notes=notes)


def read_labels(path: Path, form: TextForm | None = None) -> Labels:
    """Read a table of labels.

    Raises:
        MedclipError: MISSING_FILE; TABLE_INVALID without a column `key`, or where a key stands twice.
    """
    read = read_table(path, "the table of labels", form).with_names(_COLUMNS)
    read.need("key", "the key of each pair")
    keys = read.texts("key")
    row_of = {key: row for row, key in enumerate(keys)}
    if len(row_of) < len(keys):
        hint = "Keep one row for each pair."
        raise MedclipError(Reason.TABLE_INVALID, "a key stands twice in the table of labels.", where=path, hint=hint)
    return Labels(row_of, {name: read.texts(name) for name in read.names if name != "key"}, read.where)
