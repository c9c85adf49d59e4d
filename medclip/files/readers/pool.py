"""Reading processes of our own: a decoder that crashes, hangs or eats memory costs one file and never the run.

`concurrent.futures.ProcessPoolExecutor` gives up as a whole when one process dies, and `multiprocessing` imports the
caller's script again in every process; this does neither. One thread per process waits for that process, so the model
can compute meanwhile.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

from medclip.files.readers.job_queue import Job, JobFuture, JobQueue
from medclip.files.readers.memory import MemoryBudget, budget_bytes
from medclip.files.readers.serving import Serving
from medclip.files.readers.worker import Patience
from medclip.settings import Settings


class ReadingPool:
    """A fixed number of reading processes.

    Args:
        num_workers: Number of processes. They start with the first jobs, not before.
        timeout_s: Seconds one job may take; its process is killed then and a new one is started.
        memory_bytes: Address space of each process; a job that wants more ends with TOO_LARGE. None for no limit.
        total_bytes: Bytes that all processes and this one may hold together. Near it, jobs wait for others; beyond it,
            the largest is stopped and done again alone, and ends with TOO_LARGE if that is too much, too. None for no
            limit.
        note: Function called, from any thread, with a sentence for the user when work has to wait.
        begin: A function and its arguments, called in each new process before its first job; what it raises is raised
            by that job.

    Use as a context manager: leaving it stops every process at once.
    """

    def __init__(
        self,
        num_workers: int,
        timeout_s: float,
        memory_bytes: int | None = None,
        total_bytes: int | None = None,
        note: Callable[[str], None] = lambda _: None,
        begin: tuple[Callable[..., Any], tuple[Any, ...]] | None = None,
    ) -> None:
        budget = None if total_bytes is None else MemoryBudget(total_bytes)
        self._queue = JobQueue(budget)
        note_once, patience = _once(note), Patience()
        self._threads: list[threading.Thread] = []
        for number in range(max(1, num_workers)):
            serving = Serving(
                self._queue, timeout_s, memory_bytes, budget, note_once, begin, patience, f"reader {number + 1}"
            )
            thread = threading.Thread(target=serving.run, name="medclip-reader", daemon=True)
            thread.start()
            self._threads.append(thread)

    @classmethod
    def of(
        cls, settings: Settings, num_workers: int | None = None, note: Callable[[str], None] = lambda _: None
    ) -> Self:
        """Return a pool within the limits of the settings.

        Args:
            settings: Limits.
            num_workers: Number of processes; the settings' where None.
            note: Function called, from any thread, with a sentence for the user when work has to wait.
        """
        total = budget_bytes(settings.memory_bytes)
        return cls(
            num_workers or settings.workers, settings.decode_timeout_s, settings.reader_memory_bytes, total, note
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, function: Callable[..., Any], *arguments: Any, urgent: bool = False) -> JobFuture:
        """Queue one job.

        Args:
            function: A function importable by name that does not import torch.
            arguments: Arguments of the function; pickled.
            urgent: Whether the job goes before all that are not urgent.

        Returns:
            A future. It raises MedclipError: what the function raised, or DECODER_CRASHED when two processes died of
            it, TIMEOUT when it took too long, TOO_LARGE when it needed too much memory, READ_ERROR when its drive did
            not deliver it in several attempts, CORRUPT for any other error of a decoder, OUT_OF_MEMORY when the system
            could not start any process for minutes. Once it is done, its `effort` says what that took.
        """
        job = Job(function, arguments, urgent)
        self._queue.add(job)
        return job.future

    def seconds(self) -> dict[str, float]:
        """Return for how long jobs were under way, over all processes, by the name of their function."""
        return self._queue.seconds()

    def map(
        self, function: Callable[..., Any], jobs: Iterable[tuple[Any, ...]], *, ahead: int, urgent: bool = False
    ) -> Iterator[JobFuture]:
        """Return the futures of many jobs in their order, with at most `ahead` of them submitted and not yet taken.

        The first `ahead` jobs are submitted at once, before anything is taken.
        """
        source = iter(jobs)
        waiting = deque(
            self.submit(function, *arguments, urgent=urgent) for arguments in itertools.islice(source, max(1, ahead))
        )
        return self._drain(function, source, waiting, urgent)

    def _drain(
        self,
        function: Callable[..., Any],
        source: Iterator[tuple[Any, ...]],
        waiting: deque[JobFuture],
        urgent: bool,
    ) -> Iterator[JobFuture]:
        while waiting:
            future = waiting.popleft()
            yield future
            for arguments in itertools.islice(source, 1):
                waiting.append(self.submit(function, *arguments, urgent=urgent))

    def close(self) -> None:
        """Stop every process and thread. Jobs that were not done are cancelled."""
        self._queue.close()
        for thread in self._threads:
            thread.join(timeout=10)


def _once(note: Callable[[str], None]) -> Callable[[str, str], None]:
    """Return a note that says each kind of thing once, whichever thread is the first."""
    kinds: set[str] = set()
    lock = threading.Lock()

    def note_once(kind: str, sentence: str) -> None:
        with lock:
            is_new = kind not in kinds
            kinds.add(kind)
        if is_new:
            note(sentence)

    return note_once
