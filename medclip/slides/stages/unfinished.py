"""Vectors of a slide that is not finished: what a kill leaves is gone on with, and ends in the same bytes.

In the folder of a slide are its vectors (float32, a row for each patch of the grid, written in any order), what was
measured of the patches, and `done.txt`: a line for each block that is complete, with the patches that are lost. A line
is written once the block's rows are on the disk; a line that was cut, or that speaks of rows of another grid or model,
does not count.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.files.output import disk_errors, make_folder, read_note, write_file

_SAVE_S = 1.0
"""Seconds between two times that rows are brought to the disk: what a kill may cost."""
_COPY_ROWS = 4096


class UnfinishedSlide:
    """The vectors of one slide while they are computed.

    Args:
        folder: Folder of this slide alone; made, or gone on with where it holds the same.
        identity: Facts that make its rows the same: slide, grid, model, sizes.
        num: N, patches of the grid.
        dim: D, the length of a vector.
        num_measures: Q, numbers that are measured of a patch.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], num: int, dim: int, num_measures: int = 0) -> None:
        self.folder = folder
        self.num, self.dim = num, dim
        facts = json.loads(json.dumps({**identity, "num": num, "dim": dim, "num_measures": num_measures}))
        with disk_errors(folder):
            if read_note(folder / "slide.json") != facts:
                shutil.rmtree(folder, ignore_errors=True)
                make_folder(folder)
                write_file(folder / "slide.json", json.dumps(facts, sort_keys=True))
            self._vectors = _mapped(folder / "vectors.f32", num, dim)
            self._measures = _mapped(folder / "measures.f32", num, num_measures)
            self.blocks, self._lost = self._read_done()
        self._waiting: list[bytes] = []
        self._saved_at = time.monotonic()

    def add(
        self,
        block: int,
        rows: NDArray[np.int64],
        lost: Sequence[int],
        vectors_ND: NDArray[np.float32],
        measures_NQ: NDArray[np.float32],
    ) -> None:
        """Take a block.

        Args:
            block: Number of the block.
            rows: Places of the block's patches in the grid, int64 [P].
            lost: Places in `rows`, from 0, of the patches that could not be read.
            vectors_ND: Vectors of the other patches, in their order, float32 [N, D].
            measures_NQ: Measures of the other patches, in their order, float32 [N, Q].
        """
        kept = np.delete(rows, list(lost))
        self._vectors[kept] = vectors_ND
        if self._measures.shape[1] and len(kept):
            self._measures[kept] = measures_NQ
        gone = [int(rows[place]) for place in lost]
        self._lost.update(gone)
        self.blocks.add(block)
        self._waiting.append(json.dumps([block, gone]).encode() + b"\n")
        if time.monotonic() - self._saved_at >= _SAVE_S:
            self.save()

    def save(self) -> None:
        """Bring what was added to the disk: rows first, then the lines that count them."""
        if not self._waiting:
            return
        with disk_errors(self.folder):
            for values in (self._vectors, self._measures):
                if isinstance(values, np.memmap):
                    values.flush()
            with (self.folder / "done.txt").open("ab") as done:
                done.write(b"".join(self._waiting))
                done.flush()
                os.fsync(done.fileno())
        self._waiting, self._saved_at = [], time.monotonic()

    @property
    def kept(self) -> NDArray[np.int64]:
        """Places in the grid of the patches that have a vector, in reading order."""
        return np.setdiff1d(np.arange(self.num, dtype=np.int64), np.fromiter(self._lost, np.int64, len(self._lost)))

    def vectors(self, dtype: str) -> NDArray[np.floating[Any]]:
        """Return the vectors of `kept` in a memory map of a type: float32 or float16 [kept, D]."""
        kept = self.kept
        if len(kept) == self.num and dtype == "float32":
            return self._vectors
        with disk_errors(self.folder):
            chosen = _mapped(self.folder / f"kept.{dtype}", len(kept), self.dim, dtype)
            for rows, start in _runs(kept):
                chosen[start : start + len(rows)] = self._vectors[rows]
        return chosen

    def measures(self) -> NDArray[np.float32]:
        """Return what was measured of the patches of `kept`: float32 [kept, Q]."""
        return np.asarray(self._measures[self.kept])

    def remove(self) -> None:
        """Remove it: the slide's file holds all."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read_done(self) -> tuple[set[int], set[int]]:
        """Return the blocks that are complete and the patches that are lost; a line that was cut is taken away."""
        path = self.folder / "done.txt"
        text = path.read_bytes() if path.exists() else b""
        good = text[: text.rfind(b"\n") + 1]
        if good != text:
            os.truncate(path, len(good))
        lines = [json.loads(line) for line in good.splitlines()]
        return {block for block, _ in lines}, {place for _, gone in lines for place in gone}


def _mapped(path: Path, num: int, width: int, dtype: str = "float32") -> NDArray[Any]:
    """Return an array on the disk, as it is there or new; an ordinary one where it has no values."""
    if not num * width:
        return np.zeros((num, width), dtype)
    size = num * width * np.dtype(dtype).itemsize
    with open(path, "ab") as file:
        if file.tell() != size:
            file.truncate(0)
            # A map over a file with holes would end in a signal where the disk is full; this ends in an error.
            os.posix_fallocate(file.fileno(), 0, size)
    return np.memmap(path, dtype, "r+", shape=(num, width))


def _runs(rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], int]]:
    for start in range(0, len(rows), _COPY_ROWS):
        yield rows[start : start + _COPY_ROWS], start
