"""Filters of a pile of image-text pairs: each keeps rows, or weights them. One table; it imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.lazy import import_name

if TYPE_CHECKING:
    import pyarrow as pa

DROPPED_BY, WEIGHT = "dropped_by", "pair_weight"


@dataclass(frozen=True)
class Filter:
    """One row of the table."""

    about: str
    """What it keeps, or weights by, in a few words."""
    target: str
    """module:function, of the pairs (pyarrow, N rows) and the folder that their files are relative to, to [N]: bool for
    rows that are kept, or finite float weights of 0 and more."""
    columns: tuple[str, ...] = ()
    """Columns that it needs."""
    opens_files: bool = False
    """It opens the files of the rows: all must be there."""


FILTERS: Mapping[str, Filter] = {}
"""Names, as --filter has them."""


def check_filters(names: Sequence[str]) -> None:
    """Refuse a filter that there is not."""
    for name in names:
        if name not in FILTERS:
            raise MedclipError(
                Reason.WRONG_USE,
                f"there is no filter named {name!r}.",
                hint=did_you_mean(name, FILTERS, "Filters are") if FILTERS else "This version has none of its own.",
            )


def apply_filters(pairs: pa.Table, names: Sequence[str], folder: Path) -> tuple[pa.Table, pa.Table, dict[str, int]]:
    """Ask filters one after the other, each about the rows that those before it kept.

    Args:
        pairs: Pairs with the column `file`.
        names: Names of `FILTERS`.
        folder: Folder that relative files are relative to.

    Returns:
        Pairs that are kept, with the product of all weights in `pair_weight` where a filter weights; pairs that are
        dropped, with the name of the filter in `dropped_by`; and how many each dropped.

    Raises:
        MedclipError: TABLE_INVALID for a column that a filter lacks, and for weights that the table has already;
            MISSING_FILE for a file that one is to open.
    """
    import numpy as np
    import pyarrow as pa

    rows = np.arange(pairs.num_rows)
    weights: Any = None
    dropped_by = np.full(pairs.num_rows, "", object)
    for name in names:
        selected = pairs.take(rows)
        _check_needs(name, selected, folder)
        judged = np.asarray(import_name(FILTERS[name].target)(selected, folder))
        is_choice = judged.dtype == bool
        if judged.shape != rows.shape or not (is_choice or (np.isfinite(judged).all() and (judged >= 0).all())):
            raise ValueError(f"the filter {name!r} must return a bool, or a finite weight of 0 and more, for each row")
        if is_choice:
            dropped_by[rows[~judged]] = name
            rows = rows[judged]
        else:
            weights = np.ones(pairs.num_rows) if weights is None else weights
            weights[rows] *= judged
    kept, without = pairs.take(rows), pairs.take(np.flatnonzero(dropped_by != ""))
    if weights is not None:
        if WEIGHT in pairs.column_names:
            raise MedclipError(Reason.TABLE_INVALID, f"the table has a column {WEIGHT!r} already.", hint="Rename it.")
        kept = kept.append_column(WEIGHT, pa.array(weights[rows], pa.float64()))
    reasons = pa.array([name for name in dropped_by if name], pa.string())
    counts = {name: int((dropped_by == name).sum()) for name in dict.fromkeys(names)}
    return kept, without.append_column(DROPPED_BY, reasons), counts


def _check_needs(name: str, pairs: pa.Table, folder: Path) -> None:
    from medclip.files.tables.table import listed

    row = FILTERS[name]
    for column in row.columns:
        if column not in pairs.column_names:
            raise MedclipError(
                Reason.TABLE_INVALID, f"the filter {name!r} needs a column {column!r}. {listed(pairs.column_names)}"
            )
    for file in pairs.column("file").to_pylist() if row.opens_files else ():
        if not (folder / file).exists():
            raise MedclipError(
                Reason.MISSING_FILE, f"the filter {name!r} opens the files, and this one is not there.", where=file
            )
