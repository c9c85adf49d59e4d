"""Run reading jobs in processes, in order, so that one crashing or hanging decoder costs one file and not the build."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from medclip.errors import MedclipError, Problem, Reason

CRASHED = Problem(
    Reason.DECODER_CRASHED, "The process that decoded the file died; the file is damaged or its decoder has a fault."
)
TIMED_OUT = Problem(Reason.TIMEOUT, "The file took longer to decode than the limit allows.")

Work = Callable[..., Any]


def run_in_order(work: Work, jobs: Iterable[tuple[Any, ...]], *, workers: int, timeout_s: float) -> Iterator[Any]:
    """Give `work(*job)` for each job, in the order of the jobs; a Problem instead where the process died or hung.

    A pool of processes breaks as a whole when one dies. The jobs that were in flight are then run again one at a time,
    each in a process of its own, so that the guilty one is found and the others get their result.

    Args:
        work: A function that can be imported by name.
        jobs: Arguments; taken from the iterable only a little ahead of what is given back.
        workers: Number of processes.
        timeout_s: Seconds one job may take.

    Raises:
        MedclipError: WRONG_USE when no process can start at all.
        Exception: Whatever `work` raised.
    """
    source = iter(jobs)
    waiting: deque[tuple[tuple[Any, ...], Future[Any]]] = deque()
    pool = _start(workers)
    try:
        _prove(pool)
        while True:
            while len(waiting) < 3 * workers and (job := next(source, None)) is not None:
                try:
                    waiting.append((job, pool.submit(work, *job)))
                except BrokenProcessPool:
                    failed: Future[Any] = Future()
                    failed.set_exception(BrokenProcessPool())
                    waiting.append((job, failed))
                    break
            if not waiting:
                return
            job, future = waiting[0]
            try:
                # The oldest job started first: when it is over time, nothing before it can be to blame.
                yield_value = future.result(timeout=timeout_s)
            except FutureTimeout:
                if future.done():
                    raise
                _stop(pool)
                yield TIMED_OUT
                waiting.popleft()
                pool = _start(workers)
                waiting = deque((j, f if _finished(f) else pool.submit(work, *j)) for j, f in waiting)
                continue
            except BrokenProcessPool:
                _stop(pool)
                for suspect, f in waiting:
                    yield f.result() if _finished(f) else _alone(work, suspect, timeout_s)
                waiting.clear()
                pool = _start(workers)
                continue
            yield yield_value
            waiting.popleft()
    finally:
        _stop(pool)


def _alone(work: Work, job: tuple[Any, ...], timeout_s: float) -> Any:
    pool = _start(1)
    try:
        return pool.submit(work, *job).result(timeout=timeout_s)
    except FutureTimeout:
        return TIMED_OUT
    except BrokenProcessPool:
        return CRASHED
    finally:
        _stop(pool)


def _finished(future: Future[Any]) -> bool:
    return future.done() and not future.cancelled() and not isinstance(future.exception(), BrokenProcessPool)


def _prove(pool: ProcessPoolExecutor) -> None:
    """See that a process can start, so that a fault of the caller is not taken for one of the files."""
    try:
        pool.submit(_nothing).result(timeout=300)
    except BrokenProcessPool:
        raise MedclipError(
            Reason.WRONG_USE,
            "no reading process can start: a new process runs the calling script again.",
            hint='Put the call under `if __name__ == "__main__":`, or use the command medclip shards build.',
        ) from None


def _nothing() -> None:
    """Do nothing, in a process."""


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _start(workers: int) -> ProcessPoolExecutor:
    # spawn: the parent may hold threads or a GPU, and both break under fork.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_interrupts_to_the_parent)


def _stop(pool: ProcessPoolExecutor) -> None:
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
