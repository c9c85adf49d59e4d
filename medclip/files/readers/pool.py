"""Reading processes of our own: a decoder that crashes, hangs or eats memory costs one file and never the run.

`concurrent.futures.ProcessPoolExecutor` gives up as a whole when one process dies, and `multiprocessing` imports the
caller's script again in every process; this does neither. One thread per process waits for that process, so the model
can compute meanwhile. The processes never import torch and use one BLAS thread each.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.readers.worker import receive, send

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_STARTER = "import sys; sys.path[:] = {path!r}; from medclip.files.readers.worker import main; main({memory_bytes})"
_LAST = 2**31


class ReadingPool:
    """A fixed number of reading processes.

    Args:
        num_workers: Number of processes. They start with the first jobs, not before.
        timeout_s: Seconds one job may take; its process is killed then and a new one is started.
        memory_bytes: Address space of each process; a job that wants more ends with TOO_LARGE. None for no limit.

    Use as a context manager: leaving it stops every process at once.
    """

    def __init__(self, num_workers: int, timeout_s: float, memory_bytes: int | None = None) -> None:
        self._timeout_s = timeout_s
        self._jobs: queue.PriorityQueue[tuple[int, int, Any]] = queue.PriorityQueue()
        self._count = itertools.count()
        self._closing = threading.Event()
        self._workers = [_Worker(memory_bytes) for _ in range(max(1, num_workers))]
        self._threads = [
            threading.Thread(target=self._serve, args=(worker,), name="medclip-reader", daemon=True)
            for worker in self._workers
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> ReadingPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, function: Callable[..., Any], *arguments: Any, urgent: bool = False) -> Future[Any]:
        """Queue one job.

        Args:
            function: A function importable by name that does not import torch.
            arguments: What it is called with; pickled.
            urgent: Go before all jobs that are not urgent.

        Returns:
            A future. It raises MedclipError: what the function raised, or DECODER_CRASHED when the process died,
            TIMEOUT when it took too long, CORRUPT for any other error of a decoder.
        """
        future: Future[Any] = Future()
        self._jobs.put((0 if urgent else 1, next(self._count), (future, function, arguments)))
        return future

    def map(
        self, function: Callable[..., Any], jobs: Iterable[tuple[Any, ...]], *, ahead: int, urgent: bool = False
    ) -> Iterator[Future[Any]]:
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
        waiting: deque[Future[Any]],
        urgent: bool,
    ) -> Iterator[Future[Any]]:
        while waiting:
            future = waiting.popleft()
            yield future
            for arguments in itertools.islice(source, 1):
                waiting.append(self.submit(function, *arguments, urgent=urgent))

    def close(self) -> None:
        """Stop every process and thread. Jobs that were not done are cancelled."""
        self._closing.set()
        with contextlib.suppress(queue.Empty):
            while True:
                _, _, job = self._jobs.get_nowait()
                if job is not None:
                    job[0].cancel()
        for _ in self._threads:
            self._jobs.put((_LAST, next(self._count), None))
        for worker in self._workers:
            worker.stop()
        for thread in self._threads:
            thread.join(timeout=10)

    def _serve(self, worker: _Worker) -> None:
        while not self._closing.is_set():
            _, _, job = self._jobs.get()
            if job is None:
                break
            future, function, arguments = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(worker.call(function, arguments, self._timeout_s))
            except BaseException as error:
                future.set_exception(error)
        worker.stop()


class _Worker:
    """One process and the two pipes to it. Only its own thread calls it; `stop` may come from any thread."""

    def __init__(self, memory_bytes: int | None) -> None:
        self._memory_bytes = memory_bytes
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], timeout_s: float) -> Any:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Event()
        alarm = threading.Timer(timeout_s, lambda: (late.set(), process.kill()))
        alarm.daemon = True
        alarm.start()
        try:
            send(process.stdin, (function, arguments))
            good, value = receive(process.stdout)
        except (EOFError, OSError):
            self.stop()
            raise _lost(late.is_set(), timeout_s) from None
        finally:
            alarm.cancel()
        if good:
            return value
        raise value if isinstance(value, MedclipError) else _unexpected(str(value))

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            path = [entry for entry in sys.path if entry]
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _STARTER.format(path=path, memory_bytes=self._memory_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **dict.fromkeys(_ONE_THREAD, "1")},
            )
        return self._process


def _lost(late: bool, timeout_s: float) -> MedclipError:
    if late:
        return MedclipError(
            Reason.TIMEOUT,
            f"reading took longer than {timeout_s:g} s and was stopped.",
            hint="From Python, Settings(decode_timeout_s=...) allows more; there is no option for it.",
        )
    return MedclipError(
        Reason.DECODER_CRASHED,
        "the decoder crashed on this file and took its process down.",
        hint="The file is probably damaged; the other files are not affected.",
    )


def _unexpected(name: str) -> MedclipError:
    if name == "MemoryError":
        return MedclipError(Reason.TOO_LARGE, "reading this file needs more memory than there is.")
    return MedclipError(Reason.CORRUPT, f"the decoder could not make sense of the file ({name}).")
