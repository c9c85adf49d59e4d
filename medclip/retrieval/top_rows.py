"""The best rows for queries, exactly: in blocks, under a memory ceiling, in an order that no thread can change.

A block's scores come from one matrix product in float32. Rows that may belong to the best, up to the error bound of
that product, are kept; at the end they are scored once more in float64, one by one. So the order depends neither on the
size of blocks nor on how a product was split among threads, and equal vectors have equal scores; of those the lower row
comes first.

Memory: one block of vectors (16 MiB) for each of up to four threads, its scores, and what is kept for each query; see
`MEMORY_BYTES`. A folder full of equal vectors takes no more: where too many rows are kept they are scored exactly at
once, and the best remain.

Each thread takes the next block as soon as it is done with one, and BLAS computes a block in that thread alone. Were
BLAS to split each block, its threads would wait for one another after every product: on a busy machine, where one of
them is not running, a search of 200,000 x 512 took up to 20 times as long.

Parquet cannot be mapped: a list of it is compressed and cut into pages, and a million vectors of 512 take seconds to
decode. So the first search of a level writes its vectors once more, as a plain `.npy` that any tool can open: always as
float32, since to widen a float16 takes a processor three times as long as the product it is widened for. Its name
carries the digest of the store that it was made from; one of another digest is never opened, and goes when the new one
is made.

A file of up to 1 GiB stays mapped for the next search: its pages are the machine's page cache, which takes them back
when it needs them. Those of a block of a larger file are asked for in one call and handed back after it, so that the
process holds a block for each thread however large the file is. On one 2-core machine 200,000 x 512 float32
with one query took 35 ms of CPU time mapped, 57 ms with pages handed back, 71 ms by read into a buffer, 34 ms where all
lies in the memory of the process.
"""

from __future__ import annotations

import mmap
import os
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from medclip.errors import MedclipError, Reason
from medclip.files.output import new_file

BLOCK_BYTES = 16 << 20
"""Of float32, read at once. Smaller ones pay for their calls."""
_MOST_SCORES = 1 << 19
"""Of a block."""
_STAYS_MAPPED_BYTES = 1 << 30
_MOST_THREADS = 4
"""More than four cores wait for the memory, and each takes a block of it."""
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

    def starts(self, num_queries: int = 1) -> range:
        """Return the numbers of the first rows of blocks of a size that suits so many queries."""
        size = min(BLOCK_BYTES // (4 * self.dim), _MOST_SCORES // num_queries)
        return range(0, self.num_rows, max(1, size))

    def blocks(
        self,
        wanted: NDArray[np.bool_] | None = None,
        starts: range | None = None,
        shared: Iterator[int] | None = None,
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the number of the first row of each block and its vectors, float32 [B, D], valid until the next.

        Args:
            wanted: Whether each row is wanted, bool [N]; blocks without a wanted row are passed over, and so never
                read.
            starts: First rows of all blocks; `starts()` where None.
            shared: Iterator over `starts` of which several threads take their blocks; a new one where None.
        """
        starts = starts or self.starts()
        size = starts.step
        for start in shared or starts:
            if wanted is not None and not wanted[start : start + size].any():
                continue
            block = self.vectors[start : start + size]
            if self.vectors.nbytes <= _STAYS_MAPPED_BYTES:
                yield start, block
                continue
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


MEMORY_BYTES = 128 << 20
"""Ceiling of what a search takes beyond its answer (12 bytes for each row of it) and a file that stays mapped."""
_QUERIES_AT_ONCE = 256
_ASKED_AT_ONCE = 1 << 19
"""Rows that the queries of one group ask for together; each takes 24 bytes while it is sorted."""
_KEPT = 1 << 16
"""Rows kept for all queries of a group beyond twice what they ask for, and taken from one block beyond it."""
_RESCORED = 512
"""Rows scored in float64 at once."""
_BY_VECTOR = 3
"""Up to so many queries one product each is faster than one of matrices: 13 against 24 ms for two on 50,000 x 512."""
_UNIT_ROUNDOFF = 2.0**-24


@dataclass(frozen=True, eq=False)
class TopRows:
    """The best rows of each query, and how the scores of all rows are spread."""

    rows: NDArray[np.int64]
    """[Q, K'], the best first, where K' is at most the number of rows that were looked at."""
    scores: NDArray[np.float32]
    """[Q, K']: dot products of the query with the row."""
    mean: NDArray[np.float64]
    """[Q]: over all rows that were looked at."""
    sd: NDArray[np.float64]
    """[Q]: standard deviation over them."""
    num_rows: int
    """Rows that were looked at."""


def top_rows(
    vectors: VectorFile, queries_QD: NDArray[np.floating], k: int, *, wanted: NDArray[np.bool_] | None = None
) -> TopRows:
    """Find the rows with the largest dot products.

    Args:
        vectors: N vectors of norm 1 at most (up to rounding).
        queries_QD: Queries, float [Q, D] of any norm.
        k: Number of rows found; all that are looked at where there are fewer.
        wanted: Whether each row is looked at, bool [N]; all where None.

    Example:
        >>> import tempfile, pathlib
        >>> from medclip.retrieval.top_rows import open_vector_file, write_vector_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "v.npy")
        ...     write_vector_file(path, (3, 2), [np.array([[0, 1], [1, 0], [0, 1]])])
        ...     best = top_rows(open_vector_file(path, (3, 2)), np.array([[0.0, 1.0]]), 2)
        >>> best.rows.tolist(), best.scores.tolist()
        ([[0, 2]], [[1.0, 1.0]])
    """
    queries = np.ascontiguousarray(queries_QD, np.float32)
    group = min(_QUERIES_AT_ONCE, max(1, _ASKED_AT_ONCE // max(1, k)))
    parts = [_of_group(vectors, queries[i : i + group], k, wanted) for i in range(0, len(queries), group)]
    if not parts:
        nothing = np.zeros(0)
        return TopRows(np.zeros((0, 0), np.int64), np.zeros((0, 0), np.float32), nothing, nothing, vectors.num_rows)
    return TopRows(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.mean for part in parts]),
        np.concatenate([part.sd for part in parts]),
        parts[0].num_rows,
    )


def exact_scores(vectors_ND: NDArray[np.floating], queries_ND: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the dot product of each pair of rows, summed in float64 in one fixed order; float32 [N]."""
    return (vectors_ND.astype(np.float64) * queries_ND.astype(np.float64)).sum(axis=-1).astype(np.float32)


@cache
def _blas() -> ThreadpoolController:
    """Return the libraries of products of matrices; to look for them takes a millisecond."""
    return ThreadpoolController().select(user_api="blas")


_TURN = Lock()
"""Searches of one process take turns: each has all cores, and sets the threads of BLAS for all of the process."""


def _of_group(vectors: VectorFile, queries: NDArray[np.float32], k: int, wanted: NDArray[np.bool_] | None) -> TopRows:
    starts = vectors.starts(len(queries))
    sums = np.zeros((2, len(starts), len(queries)))  # by block, so that they are added up in one order
    shared = iter(starts)

    def search() -> tuple[_Kept, int]:
        best, num_rows = _Kept(vectors, queries, k), 0
        for start, block in vectors.blocks(wanted, starts, shared):
            if len(queries) <= _BY_VECTOR:
                scores_BQ = np.stack([block @ q for q in queries], axis=1)
            else:
                scores_BQ = block @ queries.T
            columns = None
            if wanted is not None and not (of_block := wanted[start : start + len(block)]).all():
                columns = np.flatnonzero(of_block)
                scores_BQ = scores_BQ[columns]
            num_rows += len(scores_BQ)
            of_block = sums[:, start // starts.step]
            scores_BQ.sum(axis=0, dtype=np.float64, out=of_block[0])
            np.einsum("bq,bq->q", scores_BQ, scores_BQ, dtype=np.float64, out=of_block[1])
            best.add(scores_BQ, start, columns, block)
        return best, num_rows

    num_threads = max(1, min(os.cpu_count() or 1, _MOST_THREADS, len(starts)))
    with _TURN, _blas().limit(limits=1), ThreadPoolExecutor(num_threads, thread_name_prefix="medclip-search") as pool:
        others = [pool.submit(search) for _ in range(num_threads - 1)]
        parts = [search(), *(other.result() for other in others)]
    best, num_rows = parts[0][0], sum(num for _, num in parts)
    for other, _ in parts[1:]:
        best.join(other)
    mean, of_squares = sums.sum(axis=1) / max(num_rows, 1)
    sd = np.sqrt(np.maximum(of_squares - mean**2, 0.0))
    rows, of_rows = best.final()
    return TopRows(rows, of_rows, mean, sd, num_rows)


@dataclass
class _Kept:
    """Rows that may belong to the best of each query of a group."""

    vectors: VectorFile
    queries: NDArray[np.float32]
    k: int
    query: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    row: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    score: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    num_new: int = 0

    def __post_init__(self) -> None:
        # A sum of D products in any order is off by D u |q| |v| at most (Higham, Accuracy and Stability, 3.1): twice,
        # as both the row and the k-th may be; and what rounding to float32 makes equal is decided by its row.
        norms = np.linalg.norm(self.queries.astype(np.float64), axis=1)
        self.margin = ((2.02 * self.queries.shape[1] + 2) * _UNIT_ROUNDOFF * norms).astype(np.float32)
        self.least = np.full(len(self.queries), -np.inf, np.float32)
        self.limit = 2 * self.k * len(self.queries) + _KEPT
        self.pending: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []

    def add(
        self,
        scores_BQ: NDArray[np.float32],
        start: int,
        columns: NDArray[np.int64] | None,
        block: NDArray[np.float32],
    ) -> None:
        """Keep what reaches the least score of the best so far."""
        if self.k < len(scores_BQ) and np.isneginf(self.least).any():  # the first block: none of it beyond its k best
            place = len(scores_BQ) - self.k
            self.least = np.maximum(self.least, np.partition(scores_BQ, place, axis=0)[place] - self.margin)
        kept = np.flatnonzero(scores_BQ >= self.least)  # a tenth of the time of `nonzero`
        if not len(kept):
            return
        (column, query), score = np.divmod(kept, len(self.queries)), scores_BQ.ravel()[kept]
        row = column if columns is None else columns[column]
        if len(query) > len(self.queries) * self.k + _KEPT:  # a block of equals
            query, row, score = self._best_of(query, row, score, lambda rows: block[rows])
        self.pending.append((query, row + start, score))
        self.num_new += len(query)
        if self.num_new >= max(len(self.queries) * self.k, 256):
            self._merge()

    def join(self, other: _Kept) -> None:
        """Keep what another thread kept of the same queries."""
        self.pending += [(other.query, other.row, other.score), *other.pending]

    def final(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the best rows of each query and their exact scores."""
        self._merge()
        self._rescore()
        num = len(self.queries)
        return self.row.reshape(num, -1), self.score.reshape(num, -1)

    def _merge(self) -> None:
        parts = [(self.query, self.row, self.score), *self.pending]
        self.query, self.row, self.score = (np.concatenate(column) for column in zip(*parts, strict=True))
        self.pending, self.num_new = [], 0
        order = np.lexsort((self.row, -self.score, self.query))
        self._take(order)
        firsts, counts = self._groups(self.query)
        full = counts >= self.k
        kth = self.score[np.minimum(firsts + self.k - 1, len(self.score) - 1)] if len(self.score) else self.least
        self.least = np.where(full, np.maximum(self.least, kth - self.margin), self.least)
        self._take(np.flatnonzero(self.score >= self.least[self.query]))
        if len(self.row) > self.limit:
            self._rescore()

    def _rescore(self) -> None:
        """Score what is kept exactly and keep the best alone."""
        self.query, self.row, self.score = self._best_of(self.query, self.row, self.score, self.vectors.rows)

    def _best_of(
        self,
        query: NDArray[np.int64],
        row: NDArray[np.int64],
        score: NDArray[np.float32],
        vectors_of: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Score rows exactly, in the place of their scores, and return the best of each query, in order."""
        for start in range(0, len(row), _RESCORED):
            part = slice(start, start + _RESCORED)
            score[part] = exact_scores(vectors_of(row[part]), self.queries[query[part]])
        order = np.lexsort((row, -score, query))
        query, row, score = query[order], row[order], score[order]
        firsts, _ = self._groups(query)
        best = np.flatnonzero(np.arange(len(row)) - firsts[query] < self.k)
        return query[best], row[best], score[best]

    def _groups(self, query: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where the rows of each query begin and how many they are; rows are sorted by query."""
        counts = np.bincount(query, minlength=len(self.queries))
        return np.cumsum(counts) - counts, counts

    def _take(self, which: NDArray[np.int64]) -> None:
        self.query, self.row, self.score = self.query[which], self.row[which], self.score[which]
