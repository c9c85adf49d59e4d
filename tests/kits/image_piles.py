"""Piles of image-text pairs made by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medclip.errors import MedclipError
from medclip.pairs.pile import Pile
from medclip.pairs.pile_columns import COLUMNS
from medclip.pairs.selection.steps import Context
from medclip.settings import Settings

Image = NDArray[np.uint8] | MedclipError


def pile_of(images: Sequence[Image] | None = None, **columns: Sequence[str]) -> Pile:
    """Make a pile of images, uint8 [H, W] or [H, W, 3]; keys are numbers, other columns are blank where not given."""
    num = len(images) if images is not None else len(next(iter(columns.values())))
    cells: Mapping[str, Sequence[str]] = {"key": [f"k{n:05}" for n in range(num)], **columns}
    table = pa.table({name: pa.array(cells.get(name, [""] * num), pa.string()) for name in (*COLUMNS, *columns)})

    def read(rows: Sequence[int]) -> Iterator[Image]:
        assert images is not None, "a step opened images that it has no use for"
        for row in rows:
            image = images[row]
            yield image if isinstance(image, MedclipError) or image.ndim == 3 else np.repeat(image[..., None], 3, 2)

    return Pile(table, Path("pile.csv"), "digest", read)


def context_of(folder: Path = Path(), seed: int = 0, **more: Any) -> Context:
    """Make a context whose home is the folder."""
    return Context(seed, folder, dataclasses.replace(Settings(), home=folder), **more)
