"""Look at files on the nodes of a Ray cluster: each reads, hashes and recognises its share, and sends back the facts.

What looks at a file changes nothing, so that Ray may start a lost reader anew and have its jobs done once more. The
readers book no CPU: they work while workers wait for files, and are never what a full cluster has no room for.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from medclip.errors import MedclipError, Reason
from medclip.files.readers.job_queue import Effort, JobFuture
from medclip.files.readers.pool import ReadingPool
from medclip.runs.engines.engine import refuse_other_files
from medclip.runs.engines.ray_connection import WorkerLostError, connected
from medclip.settings import Settings

BATCH = 16
"""Files of one call: a call costs about a millisecond."""
DEPTH = 4
"""Calls that a reader has at once."""
RETRIES = 3
_PAUSE_S = 0.01
_TICK_S = 0.05

_Work = tuple[Callable[..., Any], tuple[Any, ...]]
_Batch = list[tuple[_Work, JobFuture]]


class Reader:
    """Reading processes on one node.

    Args:
        settings: Limits.
        readers: Number of reading processes; the cores of the node where None.
        witness: Path that exists where the files of the run can be read; None for none.
    """

    def __init__(self, settings: Settings, readers: int | None, witness: Path | None = None) -> None:
        self._witness = witness
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        self._pool = ReadingPool.of(replace(settings, workers=readers or cores))

    def look(self, jobs: list[_Work]) -> list[tuple[Any, MedclipError | None, Effort]] | MedclipError:
        """Do jobs; return what each returned or raised, and what it took, or why that cannot be done here."""
        try:
            refuse_other_files(self._witness)
        except MedclipError as error:
            return error
        self._witness = None
        futures = [self._pool.submit(function, *arguments) for function, arguments in jobs]
        done = []
        for future in futures:
            try:
                result, error = future.result(), None
            except MedclipError as e:
                result, error = None, e
            done.append((result, error, future.effort))
        return done


class RayLooks:
    """Takes the place of a reading pool for whoever looks at files. Use as a context manager.

    The cluster is connected to with the first job, so that a run that is finished starts none.

    Args:
        settings: Limits.
        readers: Reading processes of each node; its cores where None.
        witness: Path that exists wherever the files of the run can be read; None where nothing tells.
        note: Function called with a sentence for the user.
    """

    def __init__(
        self,
        settings: Settings,
        readers: int | None,
        witness: Path | None = None,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._of_readers, self._note = (settings, readers, witness), note
        self._waiting: deque[tuple[_Work, JobFuture]] = deque()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._stack = ExitStack()
        self._seconds = 0.0
        self._failure: MedclipError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        for _, future in self._waiting:
            future.cancel()
        self._stack.close()

    def seconds(self) -> dict[str, float]:
        """Return the seconds of work by function, as `ReadingPool.seconds` does."""
        return {"inspect": self._seconds}

    def submit(self, function: Callable[..., Any], *arguments: Any) -> JobFuture:
        """Have a function called on some node; what it raises is raised by the future.

        Raises:
            MedclipError: UNREACHABLE where no cluster can be reached.
        """
        future = JobFuture()
        if self._thread is None:
            ray = self._stack.enter_context(connected(self._note))
            self._thread = threading.Thread(target=self._run, args=(ray,), name="medclip-looks", daemon=True)
            self._thread.start()
        self._waiting.append(((function, arguments), future))
        if self._failure is not None:  # nobody serves any more
            self._refuse_waiting(self._failure)
        return future

    def _run(self, ray: Any) -> None:
        """Serve until the end. Where Ray itself fails, each job is answered with that: nobody waits for ever."""
        sent: dict[Any, tuple[int, Any, _Batch]] = {}
        try:
            self._serve(ray, sent)
        except Exception as e:
            self._failure = e if isinstance(e, MedclipError) else _lost(e)
            for future in (future for _, _, batch in sent.values() for _, future in batch):
                future.set_exception(self._failure)
            self._refuse_waiting(self._failure)
        else:
            for future in (future for _, _, batch in sent.values() for _, future in batch):
                future.cancel()

    def _refuse_waiting(self, failure: MedclipError) -> None:
        with suppress(IndexError):
            while True:
                self._waiting.popleft()[1].set_exception(failure)

    def _serve(self, ray: Any, sent: dict[Any, tuple[int, Any, _Batch]]) -> None:
        """Send batches to the readers, and hand out what comes back.

        A reader whose node died restarts, and Ray repeats what it was given; but what is sent while Ray has not noticed
        yet is answered as lost. That batch is sent once more, and another reader is hired in the place of the lost one.
        """
        how = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": RETRIES, "max_concurrency": DEPTH}
        hire = ray.remote(**how, scheduling_strategy="SPREAD")(Reader)
        num_nodes = max(1, sum(node["Alive"] and node["Resources"].get("CPU", 0) > 0 for node in ray.nodes()))
        handles = [hire.remote(*self._of_readers) for _ in range(num_nodes)]
        loads, losses = [0] * num_nodes, 0
        while not self._closed.is_set():
            while self._waiting and min(loads) < DEPTH:
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                reader = loads.index(min(loads))
                ref = handles[reader].look.remote([work for work, _ in batch])
                sent[ref], loads[reader] = (reader, handles[reader], batch), loads[reader] + 1
            if not sent:
                self._closed.wait(_PAUSE_S)
                continue
            ready, _ = ray.wait(list(sent), num_returns=1, timeout=_TICK_S)
            for ref in ready:
                reader, handle, batch = sent[ref]  # until it is answered: what ends this loop ends the batch, too
                try:
                    done = ray.get(ref)
                except WorkerLostError:
                    losses += 1
                    if losses > RETRIES * num_nodes * DEPTH:
                        raise
                    del sent[ref]
                    loads[reader] -= 1
                    self._waiting.extendleft(reversed(batch))
                    if handles[reader] is handle:  # else another one has its place already
                        handles[reader] = hire.remote(*self._of_readers)
                    continue
                if isinstance(done, MedclipError):
                    raise done
                del sent[ref]
                loads[reader] -= 1
                losses = 0
                self._hand_out(batch, done)

    def _hand_out(self, batch: _Batch, done: Sequence[tuple[Any, Exception | None, Any]]) -> None:
        for (_, future), (result, error, effort) in zip(batch, done, strict=True):
            future.effort = effort
            self._seconds += effort.seconds
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)


def _lost(error: Exception) -> MedclipError:
    return MedclipError(
        Reason.OUT_OF_MEMORY,
        f"readers of the Ray cluster were lost while they looked at files ({type(error).__name__}).",
        hint="See Ray's log for why; the same command goes on.",
    )
