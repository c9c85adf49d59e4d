"""Work through the chunks of a run in this process: one is read while the one before is finished."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, tee

from medclip.runs.engines.engine import Committed
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.planning.plan import Chunk
from medclip.runs.units.chunk import ChunkWork, Context


def run_chunks(context: Context, ledger: Ledger, chunks: Iterator[Chunk], committed: Committed) -> None:
    """Work through chunks here.

    Args:
        context: Context that every chunk needs.
        ledger: Ledger that each chunk is committed to whole.
        chunks: Chunks that may come as they are found: some are asked for ahead.
        committed: Function called after each commit with what was committed and what the commit returned.
    """
    for_reading, for_work = tee(chunks)
    readings = context.first_readings(for_reading)
    previous: ChunkWork | None = None
    for chunk in chain(for_work, [None]):
        work = None if chunk is None else ChunkWork.begin(context, chunk, readings)
        if previous is not None:
            previous.finish()
            result = context.answers.result(previous)
            committed(result, ledger.commit(result))
        previous = work
