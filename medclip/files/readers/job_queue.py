"""Jobs that wait for a reading process, and who may begin which: by urgency, and as far as memory goes."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any

from medclip.files.readers.memory import MemoryBudget

_LOOK_S = 0.05
_FIRST, _URGENT, _USUAL = range(3)


@dataclass(frozen=True)
class Effort:
    """What a job took, in all of its attempts."""

    num_retries: int = 0
    """Attempts beyond the first: after a death of its process, or an error of its drive."""
    seconds: float = 0.0
    """In which a process was at it, without pauses."""
    worker: str = ""
    """The last one to do it."""

    def and_then(self, other: Effort) -> Effort:
        """Return what this and another job took."""
        return Effort(self.num_retries + other.num_retries, self.seconds + other.seconds, other.worker or self.worker)


NO_EFFORT = Effort()


class JobFuture(Future[Any]):
    """A future that knows what its job took, once it is done."""

    effort = NO_EFFORT


@dataclass(eq=False)
class Job:
    """One call of a function in a reading process."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    urgent: bool = False
    future: JobFuture = field(default_factory=JobFuture)
    num_deaths: int = 0
    """Processes that died of it."""
    num_kills: int = 0
    """Those of them that were killed from outside."""
    num_read_errors: int = 0
    """Attempts that ended with an error of its drive."""
    num_attempts: int = 0
    seconds: float = 0.0
    alone: bool = False
    """Nothing else is read meanwhile, and no other process keeps memory: all there is is for this job."""


@dataclass(eq=False)
class Server:
    """A thread that does jobs, as the queue sees it."""

    let_go: Callable[[], object]
    """Stops its process, and with it the memory that this holds."""
    pid: int = 0
    """Of its process; 0 without one."""
    name: str = ""
    job: Job | None = None

    @property
    def busy(self) -> bool:
        """Whether it has a job."""
        return self.job is not None


class JobQueue:
    """Jobs in their order. All methods may be called from any thread.

    A job always begins where no other runs, so that waiting for memory has an end.

    Args:
        budget: Memory that all processes may hold; None for no limit.
    """

    def __init__(self, budget: MemoryBudget | None) -> None:
        self._budget = budget
        self._servers: list[Server] = []
        self._heap: list[tuple[int, int, Job]] = []
        self._count = itertools.count()
        self._change = threading.Condition()
        self.closed = threading.Event()
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def register(self, server: Server) -> None:
        """Make a thread known that will take jobs."""
        with self._change:
            self._servers.append(server)

    def add(self, job: Job) -> None:
        """Queue a job."""
        with self._change:
            heapq.heappush(self._heap, (_URGENT if job.urgent else _USUAL, next(self._count), job))
            self._change.notify()

    def take(self, server: Server) -> Job | None:
        """Wait for a job that may begin now; None after `close`."""
        with self._change:
            while not self.closed.is_set():
                if server.pid and self._one_wants_all():
                    server.let_go()
                if not self._heap:
                    self._change.wait()
                elif self._is_for_another(server):
                    self._change.notify()
                    self._change.wait(_LOOK_S)
                elif not self._may_begin():
                    self._change.wait(_LOOK_S)
                else:
                    job = heapq.heappop(self._heap)[-1]
                    if job.future.running() or job.future.set_running_or_notify_cancel():
                        server.job = job
                        return job
        return None

    def repeat(self, server: Server, *, alone: bool = False) -> None:
        """Queue the job of a thread once more, before all others."""
        with self._change:
            job, server.job = server.job, None
            assert job is not None
            job.alone = job.alone or alone
            if self.closed.is_set():
                job.future.set_exception(CancelledError())
            else:
                heapq.heappush(self._heap, (_FIRST, next(self._count), job))
                self._change.notify_all()

    def count_seconds(self, job: Job, seconds: float) -> None:
        """Note how long a job was under way."""
        with self._change:
            self._seconds[job.function.__name__] += seconds

    def seconds(self) -> dict[str, float]:
        """Return for how long jobs were under way, over all threads, by the name of their function."""
        with self._change:
            return dict(self._seconds)

    def done(self, server: Server) -> bool:
        """Note that a thread is done with its job.

        Returns:
            Whether it should stop its process, which keeps more memory than its share.
        """
        with self._change:
            server.job = None
            self._change.notify()
            return bool(self._budget and server.pid and self._budget.learn(server, len(self._servers)))

    def is_too_much(self, server: Server) -> bool:
        """Return whether all processes hold more than they may, and that of this thread the most."""
        with self._change:
            return bool(self._budget and self._budget.is_exceeded_by(server, self._servers))

    def forget(self, server: Server) -> None:
        """Note that a thread has no process any more."""
        with self._change:
            if self._budget is not None:
                self._budget.forget(server.pid)
            server.pid = 0

    def num_processes(self) -> int:
        """Count the processes that live."""
        with self._change:
            return sum(server.pid != 0 for server in self._servers)

    def close(self) -> None:
        """Have nothing more begin. What was not done is cancelled."""
        with self._change:
            self.closed.set()
            for _, _, job in self._heap:
                if not job.future.cancel():
                    job.future.set_exception(CancelledError())
            self._heap.clear()
            self._change.notify_all()

    def _is_for_another(self, server: Server) -> bool:
        """Whether a process would have to be started for a job that one with nothing to do can have at once.

        A run over one file would else start two: 0.5 s of processor time each.
        """
        return not server.pid and any(other.pid and not other.busy for other in self._servers)

    def _one_wants_all(self) -> bool:
        head = [self._heap[0][-1]] if self._heap else []
        return any(job.alone for job in (*head, *(s.job for s in self._servers if s.job is not None)))

    def _may_begin(self) -> bool:
        busy = [server for server in self._servers if server.busy]
        if self._heap[0][-1].alone:
            return not busy and not any(server.pid for server in self._servers)
        if not busy:
            return True
        return not any(s.job and s.job.alone for s in busy) and (
            self._budget is None or self._budget.has_room(self._servers)
        )
