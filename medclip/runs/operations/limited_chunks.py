"""The chunks of a run up to a number of files: a first look at a large folder, which another call goes on with."""

from __future__ import annotations

from collections.abc import Iterator

from medclip.runs.planning.plan import Chunk


class LimitedChunks:
    """Chunks until so many files of the run have their row.

    Only whole chunks are done: what is in a chunk decides the batches that the model computes, and a run that went on
    from the middle of one could differ from an undisturbed one in the last bits of a score.

    Args:
        chunks: All that are not done; they may come as they are found.
        limit: Files; None for all.
        num_done: Files that are done already.
    """

    def __init__(self, chunks: Iterator[Chunk], limit: int | None, num_done: int) -> None:
        self._chunks, self._limit, self._num = chunks, limit, num_done
        self.is_cut = False
        """Whether there are chunks that were left out."""

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        if self.is_cut:
            raise StopIteration
        chunk = next(self._chunks)
        if self._limit is not None and self._num >= self._limit:
            self.is_cut = True
            raise StopIteration
        self._num += len(chunk.members)
        return chunk
