"""An example to search by: a file, or the number of one in the folder, and its vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medclip.embeddings.open_embeddings import Embeddings
from medclip.embeddings.write_embeddings import hash_of
from medclip.errors import MedclipError, Reason
from medclip.files.access import refuse_missing
from medclip.progress import Progress
from medclip.retrieval.searchable import open_searchable
from medclip.settings import Settings

if TYPE_CHECKING:
    from medclip.models.model import Model

Example = str | Path | int
"""A file, or the number of one in the folder that is searched."""
Load = Callable[[], "Model"]
"""Loads the model, which is needed for words and for images that are not in the folder."""


def read_examples(like: Example | Sequence[Example] | None) -> tuple[Example, ...]:
    """Return the examples of a call: none, one or several."""
    return () if like is None else (like,) if isinstance(like, (str, Path, int)) else tuple(like)


def example_vector(
    embeddings: Embeddings | None,
    like: Sequence[Example],
    load: Load,
    *,
    modality: str | None,
    settings: Settings | None,
    progress: Progress,
) -> tuple[NDArray[np.float32], tuple[int | None, ...]]:
    """Return the mean vector of examples, looked up in a folder where they are there and read where they are not.

    Args:
        embeddings: Folder of embeddings; None where there is none.
        like: The examples, at least one.
        load: Function that loads the model, called where one must be read.
        modality: Modality of examples whose header does not say.
        settings: Settings, of which the limits count.
        progress: Progress bar of images that are read.

    Returns:
        float32 [D] of unit norm; of each example the first file of the unit that it is, None where it is none.

    Raises:
        MedclipError: As `row_of`; what reading an image raises.
    """
    rows = tuple(None if embeddings is None else row_of(embeddings, example) for example in like)
    parts = []
    known = [row for row in rows if row is not None]
    if embeddings is not None and known:
        units = open_searchable(embeddings, "units", progress)
        parts.append(units.vectors.rows(np.flatnonzero(np.isin(units.rows, known))))
    strange = [Path(str(example)) for example, row in zip(like, rows, strict=True) if row is None]
    for path in strange:
        refuse_missing(path)
    return mean_vector(parts, strange, load, modality, settings, progress), rows


def mean_vector(
    parts: list[NDArray[np.float32]],
    strange: Sequence[Path],
    load: Load,
    modality: str | None,
    settings: Settings | None,
    progress: Progress,
) -> NDArray[np.float32]:
    """Return the mean of vectors that are known and of those of files that are read; float32 [D] of unit norm.

    Args:
        parts: Vectors that are known, float32 [n, D] each; at least one, unless there are files.
        strange: Files that are in no folder of vectors.
        load: Function that loads the model, called where there are any.
        modality: Modality of files whose header does not say.
        settings: Settings, of which the limits count.
        progress: Progress bar of images that are read.

    Raises:
        MedclipError: What reading an image raises.
    """
    if strange:
        read = load().embed_images(list(strange), modality=modality, settings=settings, progress=progress)
        parts = [*parts, read]
    mean = np.concatenate(parts).mean(axis=0, dtype=np.float64)
    return (mean / np.linalg.norm(mean)).astype(np.float32)


def row_of(embeddings: Embeddings, example: Example) -> int | None:
    """Return the unit of the folder that an example is, by its first file; None where it is none of them.

    A file is known by the hash of its bytes.

    Raises:
        MedclipError: MISSING_FILE for a file that is not there; WRONG_USE for a number that no unit has.
    """
    if isinstance(example, str) and example.isdecimal() and not Path(example).exists():
        example = int(example)
    if isinstance(example, int):
        file = embeddings.columns("files", ["row", "unit", "copy_of"], [example]).to_pylist()
        rows = [row for row in file[0].values() if row is not None] if file else [example]
        if units := set(embeddings.columns("units", ["row"], rows).column(0).to_pylist()):
            return next(row for row in rows if row in units)
        raise MedclipError(
            Reason.WRONG_USE,
            f"no image of these embeddings has the number {example}.",
            where=embeddings.folder,
            hint="Numbers are those of the column `row` of units.parquet.",
        )
    path = Path(example)
    refuse_missing(path)
    if not path.is_file():
        return None
    from pyarrow import compute as pc

    units = embeddings.columns("units", ["row", "sha256"])
    same = units.filter(pc.equal(units.column("sha256"), hash_of(path)))  # pyright: ignore[reportAttributeAccessIssue]
    return same.column("row")[0].as_py() if same.num_rows else None
