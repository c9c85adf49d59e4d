"""What an engine is: it turns the chunks of a plan into rows, wherever it computes. The ledger stays with the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from medclip.progress import Progress
from medclip.runs.engines.worker_plan import WorkerPlan
from medclip.runs.ledger.chunk_result import ChunkResult
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.plan import Chunk

Committed = Callable[[ChunkResult, tuple[int, int]], None]
"""Called after each commit with what was committed and what it returned."""


class Engine(Protocol):
    """Computes chunks elsewhere than in this process."""

    def run(
        self, plan: WorkerPlan, ledger: Ledger, chunks: Iterator[Chunk], committed: Committed, progress: Progress
    ) -> None:
        """Work through chunks.

        Args:
            plan: What its workers need.
            ledger: Each chunk is committed whole, by this process alone.
            chunks: Those that are not done. They may come as they are found, and are asked for as there is room.
            committed: Called after each commit.
            progress: Told how far the reading is.

        Raises:
            MedclipError: For a cluster that cannot do the work, and for a worker that cannot be what the plan says.
        """
        ...
