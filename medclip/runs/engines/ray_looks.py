"""Look at files on the nodes of a Ray cluster: each reads, hashes and recognises its share, and sends back the facts.

What looks at a file changes nothing, so that Ray may start a lost reader anew and have its jobs done once more. The
readers book no CPU: they work while workers wait for files, and are never what a full cluster has no room for.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any, Self

from medclip.errors import MedclipError, Reason
from medclip.files.readers.job_queue import Effort, JobFuture
from medclip.files.readers.pool import ReadingPool
from medclip.files.temporary_folder import TemporaryFolder
from medclip.settings import Settings

_STORE_BYTES = 256 << 20
"""Of the object store of a cluster of our own: plans and rows are small, and pixels never cross."""
_LONGEST_TEMP = 18
"""A longer folder leaves no room for Ray's names of sockets, which end at 107 bytes."""
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # its other meaning: a node of our own listens on the loopback only
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}


@contextmanager
def connected() -> Iterator[Any]:
    """Yield Ray, connected to the caller's cluster, to that of RAY_ADDRESS, or to one of our own on the loopback.

    Ray's usage statistics and dashboard are off. A cluster of a run's own keeps its logs in a temporary folder, which
    goes with it.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    settings = {name: text for name, text in _SETTINGS.items() if name not in os.environ}
    if "ray" not in sys.modules:
        os.environ.update(settings if not address else {"RAY_USAGE_STATS_ENABLED": "0"})
    import ray
    import ray.exceptions

    if ray.is_initialized():
        yield ray
        return
    how: dict[str, Any] = {"address": address or "local", "log_to_driver": False, "configure_logging": False}
    folder = None
    if not address:
        how |= {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
        if len(tempfile.gettempdir()) <= _LONGEST_TEMP:  # Ray keeps its logs; those of our own end with the run
            folder = TemporaryFolder("ray")
            how["_temp_dir"] = str(folder.path / "r")  # Ray opens its folder to everybody; the one above stays shut
    try:
        try:
            ray.init(**how)
        except (ConnectionError, RuntimeError, ValueError) as e:
            raise MedclipError(
                Reason.WRONG_USE,
                f"no Ray cluster can be reached ({type(e).__name__}).",
                where=address or None,
                hint="Check RAY_ADDRESS, or leave it out for a cluster of this run's own.",
            ) from e
        yield ray
    finally:
        with suppress(Exception):
            ray.shutdown()
        if folder is not None:
            folder.close()


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
    """

    def __init__(self, settings: Settings, readers: int | None) -> None:
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        self._pool = ReadingPool.of(replace(settings, workers=readers or cores))

    def look(self, jobs: list[_Work]) -> list[tuple[Any, MedclipError | None, Effort]]:
        """Do jobs; return what each returned or raised, and what it took."""
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
    """

    def __init__(self, settings: Settings, readers: int | None) -> None:
        self._settings, self._readers = settings, readers
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
            MedclipError: WRONG_USE where no cluster can be reached.
        """
        future = JobFuture()
        if self._thread is None:
            ray = self._stack.enter_context(connected())
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
        except Exception as e:  # such as a head node that is gone: Ray has errors of many kinds
            self._failure = _lost(e)
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
        handles = [hire.remote(self._settings, self._readers) for _ in range(num_nodes)]
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
                except ray.exceptions.RayActorError:
                    losses += 1
                    if losses > RETRIES * num_nodes * DEPTH:
                        raise
                    del sent[ref]
                    loads[reader] -= 1
                    self._waiting.extendleft(reversed(batch))
                    if handles[reader] is handle:  # else another one has its place already
                        handles[reader] = hire.remote(self._settings, self._readers)
                    continue
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
