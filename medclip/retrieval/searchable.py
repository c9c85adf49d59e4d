"""What is ranked in a folder, ready to be searched: its vectors mapped, its columns in memory.

It is kept as long as the embeddings are open, so that the second question of a notebook costs no more than its search.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from medclip.embeddings.embedded_unit import Level
from medclip.embeddings.open_embeddings import Embeddings
from medclip.embeddings.write_embeddings import NOTE
from medclip.errors import MedclipError, Reason
from medclip.files.temporary_folder import TemporaryFolder
from medclip.progress import Progress
from medclip.retrieval.result import Ranked
from medclip.retrieval.vector_file import VectorFile, open_vector_file, write_vector_file

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "search"
"""In a folder of embeddings: what searches made of it. It may be deleted at any time."""
_OPEN: WeakKeyDictionary[Embeddings, dict[Level, Searchable]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Searchable:
    """The vectors of a level and what is known of each."""

    level: Ranked
    vectors: VectorFile
    table: pa.Table
    """One row for each vector: row (of the unit's or study's first file), study, patient, modality; number of views.
    Of patches row (of the slide), top_um, left_um and coverage."""
    digest: str
    """Of the table that the vectors are in."""

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """[N]: the file of each vector."""
        return self.table.column("row").to_numpy()

    def with_values(self, column: str, values: Sequence[str]) -> NDArray[np.bool_]:
        """Return which vectors have one of these values in a column of texts; bool [N]."""
        import pyarrow as pa
        from pyarrow import compute as pc

        held = pc.is_in(self.table.column(column), value_set=pa.array(values, pa.string()))  # pyright: ignore
        return held.to_numpy(zero_copy_only=False).astype(bool)


def open_searchable(embeddings: Embeddings, level: Level, progress: Progress) -> Searchable:
    """Open a level for search; its raw file of vectors is written where there is none that fits.

    Where nothing can be written into the folder, the file is a temporary one, and goes with the process.

    Raises:
        MedclipError: NOTHING_TO_DO for embeddings without a vector; CHANGED for a damaged table; NON_FINITE.
    """
    held = _OPEN.setdefault(embeddings, {})
    if level not in held:
        held[level] = _open(embeddings, level, progress)
    return held[level]


def _open(embeddings: Embeddings, level: Level, progress: Progress) -> Searchable:
    shape = (getattr(embeddings, f"num_{level}"), embeddings.dim)
    if shape[0] == 0:
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            "no file of these embeddings could be read, so that there is nothing to search in.",
            where=embeddings.folder,
            hint="The column `message` of files.parquet says why.",
        )
    note = json.loads((embeddings.folder / NOTE).read_text(encoding="utf-8"))
    digest = str(note["sha256"][f"{level}.parquet"])
    vectors = open_vectors(embeddings.folder, level, digest, shape, lambda: embeddings.blocks(level), progress)
    names = ["row", "study", "patient", "modality", *(["number"] if level == "views" else [])]
    return Searchable(level, vectors, embeddings.columns(level, names), digest)


def open_vectors(
    folder: Path,
    level: Ranked,
    digest: str,
    shape: tuple[int, int],
    blocks: Callable[[], Iterator[NDArray[np.floating]]],
    progress: Progress,
) -> VectorFile:
    """Map the raw file of vectors of a folder; it is written where there is none that fits.

    Args:
        folder: Folder of embeddings or slides; files go into its folder `search`, or a temporary one.
        level: Level that the vectors are of.
        digest: Digest of what the vectors are taken from.
        shape: Number of vectors N and their length D.
        blocks: Function that yields the vectors, float [B, D] each.
        progress: Progress bar of vectors that are prepared.

    Raises:
        MedclipError: As `write_vector_file`, and what `blocks` raises.
    """
    path = folder / FOLDER / f"{level}-{digest[:16]}.npy"
    return open_vector_file(path, shape) or _write(path, level, shape, blocks, progress)


def _write(
    path: Path,
    level: Ranked,
    shape: tuple[int, int],
    blocks: Callable[[], Iterator[NDArray[np.floating]]],
    progress: Progress,
) -> VectorFile:
    def told() -> Iterator[NDArray[np.floating]]:
        progress.stage("Preparing vectors", shape[0])
        for block in blocks():
            yield block
            progress.step(len(block))

    try:
        write_vector_file(path, shape, told())
    except MedclipError as error:
        if error.reason not in (Reason.PERMISSION_DENIED, Reason.WRONG_USE, Reason.DISK_FULL):
            raise
        progress.note("Nothing can be written into this folder; the next search prepares its vectors again.")
        with TemporaryFolder("search") as elsewhere:
            write_vector_file(Path(elsewhere, path.name), shape, told())
            vectors = open_vector_file(Path(elsewhere, path.name), shape)
    else:
        vectors = open_vector_file(path, shape)
        for stale in path.parent.glob(f"{level}-*"):
            if not stale.name.startswith(path.stem):
                with suppress(OSError):
                    stale.unlink()
    assert vectors is not None
    return vectors
