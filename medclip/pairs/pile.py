"""A pile of image-text pairs, of shards or of a table, as columns: what steps of a selection look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medclip.errors import MedclipError

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

COLUMNS = ("key", "split", "patient", "modality", "source", "license", "text", "report")


@dataclass(frozen=True, eq=False)
class Pile:
    """N image-text pairs."""

    table: pa.Table
    """N rows with the string columns of `COLUMNS`, and those of a table of the user's own behind them. `key` is unique;
    a cell is "" where nothing is known; captions of a pair stand in `text`, a line each."""
    place: Path
    """Shard folder, or table."""
    digest: str
    """Hash of all that the rows depend on."""
    read_images: Callable[[Sequence[int]], Iterable[NDArray[np.uint8] | MedclipError]]
    """Reads images by the numbers of rows: see `images`."""

    def __len__(self) -> int:
        """Return N."""
        return self.table.num_rows

    def images(self, rows: Sequence[int]) -> Iterator[NDArray[np.uint8] | MedclipError]:
        """Yield the image of each of some rows, uint8 [H, W, 3]; an error in the place of one that cannot be read."""
        yield from self.read_images(rows)

    def cells(self, column: str, rows_M: NDArray[np.int64] | None = None) -> list[str]:
        """Return the cells of a column, of all rows or of some.

        Args:
            column: Name of a column.
            rows_M: int64 [M], numbers of rows.
        """
        cells = self.table.column(column)
        return (cells if rows_M is None else cells.take(rows_M)).to_pylist()
