"""A table beside shards: what its user knows of their samples, by key or by the file that each was made of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medclip.errors import MedclipError
from medclip.files.recognise.sniff import sniff
from medclip.imaging.masks import read_mask
from medclip.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medclip.files.tables.table import Table

_FILES = ("file", "path")


def rows_by_sample(table: Table, path: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield each row with the key of its sample, or the sha256 of its file; "" for a row with neither.

    Args:
        table: The table, with a column `key`, `file` or `path`.
        path: Place of the table, which its files are relative to.

    Raises:
        MedclipError: TABLE_INVALID for a table without any of these columns.
    """
    file = next((name for name in _FILES if name in table.names), None)
    if file is None and "key" not in table.names:
        table.need(_FILES[0], "the path of each image")
    for cell in table.rows():
        sample = cell.get("key", "")
        if not sample and file is not None and cell[file] and (path.parent / cell[file]).is_file():
            with (path.parent / cell[file]).open("rb") as stream:
                sample = hashlib.file_digest(stream, "sha256").hexdigest()
        yield sample, cell


def mask_over(path: Path, shape: tuple[int, int]) -> NDArray[np.bool_] | str:
    """Read a mask in the size of the stored image; a word where it cannot lie over it."""
    from PIL import Image

    try:
        mask_HW = read_mask(path, sniff(path), Settings())
    except (MedclipError, OSError):
        return "mask_unreadable"
    height, width = mask_HW.shape
    # What was cropped while shards were built has other proportions than its mask.
    if abs(width / height - shape[1] / shape[0]) > 1.5 / min(shape):
        return "mask_of_other_shape"
    return np.asarray(Image.fromarray(mask_HW).resize((shape[1], shape[0]), Image.Resampling.NEAREST))
