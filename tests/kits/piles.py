"""Piles of pairs made of columns, for tests of the steps of a selection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.pairs.pile import Pile
from medclip.pairs.pile_columns import COLUMNS
from medclip.pairs.selection.steps import Context
from medclip.settings import Settings


def pile_of(
    columns: Mapping[str, Sequence[Any]],
    images: Sequence[NDArray[np.uint8] | MedclipError] = (),
    max_side: int | None = None,
) -> Pile:
    """Make a pile; columns of `COLUMNS` that are not named are blank, keys are numbers."""
    num = len(next(iter(columns.values())))
    blank: dict[str, Sequence[Any]] = {name: [""] * num for name in COLUMNS} | {"key": [str(i) for i in range(num)]}
    cells = {name: [str(v) for v in columns.get(name, blank[name])] for name in COLUMNS}
    table = pa.table({name: pa.array(values, pa.string()) for name, values in cells.items()})
    for name, values in columns.items():
        if name not in COLUMNS:
            table = table.append_column(name, pa.array(values))

    def read(rows: Sequence[int]) -> Iterable[NDArray[np.uint8] | MedclipError]:
        none = MedclipError(Reason.NO_PIXELS, "there is no image.")
        return (images[row] if images else none for row in rows)

    return Pile(table, Path("pile"), f"digest of {num}", read, max_side)


def context(folder: Path = Path(), seed: int = 0) -> Context:
    """Make what steps share."""
    return Context(seed, folder, Settings(workers=1))


def every_row(pile: Pile) -> NDArray[np.int64]:
    """Return the numbers of all rows."""
    return np.arange(len(pile))


def pile_of_texts(texts: Sequence[str], patients: Sequence[str] = ()) -> tuple[Pile, NDArray[np.int64]]:
    """Make a pile of texts without images; with the numbers of its rows."""
    pile = pile_of({"text": texts, **({"patient": patients} if patients else {})})
    return pile, every_row(pile)
