"""What an engine is: it turns the chunks of a plan into rows, wherever it computes. The ledger stays with the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from medclip.files.readers.job_queue import JobFuture
from medclip.progress import Progress
from medclip.runs.engines.worker_plan import WorkerPlan
from medclip.runs.ledger.chunk_result import ChunkResult
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.planning.plan import Chunk
from medclip.settings import Settings

Committed = Callable[[ChunkResult, tuple[int, int]], None]
"""Called after each commit with what was committed and what it returned."""


class LookPool(Protocol):
    """Does what a reading pool does for whoever looks at files."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> JobFuture:
        """Have a function called with arguments that can be sent away."""
        ...

    def seconds(self) -> dict[str, float]:
        """Return the seconds of work by the names of functions."""
        ...

    def __enter__(self) -> LookPool: ...

    def __exit__(self, *_: object) -> None: ...


class Engine(Protocol):
    """Computes chunks elsewhere than in this process."""

    def look_pool(self, settings: Settings) -> LookPool:
        """Return what looks at files where they are computed; nothing is started before the first job."""
        ...

    def run(
        self, plan: WorkerPlan, ledger: Ledger, chunks: Iterator[Chunk], committed: Committed, progress: Progress
    ) -> None:
        """Work through chunks.

        Args:
            plan: Plan of what the workers need.
            ledger: Ledger that each chunk is committed to whole, by this process alone.
            chunks: Chunks that are not done. They may come as they are found, and are asked for as there is room.
            committed: Function called after each commit.
            progress: Progress bar of the reading.

        Raises:
            MedclipError: For a cluster that cannot do the work, and for a worker that cannot be what the plan says.
        """
        ...
