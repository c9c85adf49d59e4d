"""Vectors in one raw file that is mapped, not read: what search goes through, block by block.

Parquet cannot be mapped: a list of it is compressed and cut into pages, and a million vectors of 512 take seconds to
decode. So the first search of a level writes its vectors once more, as a plain `.npy` that any tool can open: always as
float32, since to widen a float16 takes a processor three times as long as the product it is widened for. Its name
carries the digest of the store that it was made from; one of another digest is never opened, and goes when the new one
is made.

Pages of a block are asked for in one call and handed back after it, so that the process holds one block however large
the file is; what the machine has free keeps the file in its page cache. On one 2-core machine, 50,000 x 512 float32
with one query: 3.3 ms this way, 13.6 ms by read into a buffer, 2.3 ms where all lies in the memory of the process.
"""

from __future__ import annotations

import mmap
import os
import sys
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.files.output import new_file

BLOCK_BYTES = 4 << 20
"""Of float32, read at once. 1 to 8 MiB are equally fast for one query; smaller ones pay for their calls."""
_MOST_ROWS = 8192
"""Of a block: the scores of 256 queries for them take 8 MiB."""
_POPULATE_READ = 22
"""MADV_POPULATE_READ of Linux 5.14, which Python does not name: map a range in one call instead of fault by fault."""


@dataclass(frozen=True, eq=False)
class VectorFile:
    """A mapped file of vectors."""

    vectors: NDArray[np.float32]
    """[N, D], read-only; taken from the file where it is touched."""
    _mapped: mmap.mmap
    _descriptor: int
    _offset: int
    """Of the first vector in the file."""

    def __post_init__(self) -> None:
        weakref.finalize(self, os.close, self._descriptor)

    @property
    def num_rows(self) -> int:
        """N."""
        return self.vectors.shape[0]

    @property
    def dim(self) -> int:
        """D."""
        return self.vectors.shape[1]

    def blocks(self, wanted: NDArray[np.bool_] | None = None) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the number of the first row of each block and its vectors, float32 [B, D], valid until the next.

        Args:
            wanted: Whether each row is wanted, bool [N]; blocks without a wanted row are passed over, and so never
                read.
        """
        size = min(max(1, BLOCK_BYTES // (4 * self.dim)), _MOST_ROWS)
        for start in range(0, self.num_rows, size):
            if wanted is not None and not wanted[start : start + size].any():
                continue
            block = self.vectors[start : start + size]
            self._advise(start, len(block), _POPULATE_READ)
            yield start, block
            self._advise(start, len(block), getattr(mmap, "MADV_DONTNEED", 0))

    def rows(self, numbers: NDArray[np.integer]) -> NDArray[np.float32]:
        """Return a copy of the vectors of rows, float32 [len(numbers), D].

        They are read and not touched in the map: a kernel maps up to 2 MiB around each touched byte.
        """
        copied = np.empty((len(numbers), self.dim), np.float32)
        for row, number in zip(copied, numbers.tolist(), strict=True):
            os.preadv(self._descriptor, [row.data], self._offset + number * row.nbytes)
        return copied

    def _advise(self, start: int, num_rows: int, advice: int) -> None:
        """Advise the kernel about the pages of rows; other systems do without."""
        if sys.platform != "linux":
            return
        row_bytes = self.vectors.itemsize * self.dim
        first = self._offset + start * row_bytes
        page = first // mmap.PAGESIZE * mmap.PAGESIZE
        with suppress(OSError, ValueError):  # a kernel that does not know the advice
            self._mapped.madvise(advice, page, first + num_rows * row_bytes - page)


def open_vector_file(path: Path, shape: tuple[int, int]) -> VectorFile | None:
    """Map a file of vectors; None where it is missing, cut short, or not of this shape."""
    try:
        with path.open("rb") as stream:
            if np.lib.format.read_magic(stream) != (1, 0):
                return None
            held, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
            offset = stream.tell()
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            num_bytes = shape[0] * shape[1] * 4
            if held != shape or fortran or dtype != np.float32 or len(mapped) != offset + num_bytes:
                return None
            vectors = np.frombuffer(mapped, np.float32, offset=offset).reshape(shape)
            return VectorFile(vectors, mapped, os.dup(stream.fileno()), offset)
    except (OSError, ValueError):
        return None


def write_vector_file(path: Path, shape: tuple[int, int], blocks: Iterable[NDArray[np.floating]]) -> None:
    """Write vectors into a file that appears whole or not at all, its owner's alone.

    Args:
        path: The file.
        shape: Number of vectors N and their length D.
        blocks: Blocks of vectors, float [B, D] each, N rows in all.

    Raises:
        MedclipError: NON_FINITE for a vector that holds no numbers, WRONG_USE for another number of rows; as
            `medclip.files.output.disk_errors`.
    """
    num_rows = 0
    with new_file(path) as draft, draft.open("wb") as stream:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for block in blocks:
            if not np.isfinite(block).all():
                raise MedclipError(Reason.NON_FINITE, "a vector of the folder holds a value that is no number.")
            stream.write(np.ascontiguousarray(block, np.float32).data)
            num_rows += len(block)
        if num_rows != shape[0]:
            raise MedclipError(Reason.WRONG_USE, f"{shape[0]} vectors were announced and {num_rows} came.")
