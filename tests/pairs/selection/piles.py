"""Piles of texts for tests of steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medclip.pairs.pile import COLUMNS, Pile
from medclip.pairs.select.steps import Context
from medclip.settings import Settings


def pile_of(texts: Sequence[str], patients: Sequence[str] = ()) -> tuple[Pile, NDArray[np.int64]]:
    """Return a pile of texts without images, and all its rows."""
    columns = {name: pa.array([""] * len(texts), pa.string()) for name in COLUMNS}
    columns["key"] = pa.array([f"k{n}" for n in range(len(texts))], pa.string())
    columns["text"] = pa.array(texts, pa.string())
    if patients:
        columns["patient"] = pa.array(patients, pa.string())
    return Pile(pa.table(columns), Path("pile"), "0", lambda rows: iter(())), np.arange(len(texts))


def context_in(folder: Path, seed: int = 0) -> Context:
    """Return the context of a step."""
    return Context(seed, folder, Settings())
