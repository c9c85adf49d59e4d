"""How much faster two reading processes are than one, on a machine whose cores others use as well.

Each round has three parts in turn: what the machine itself gives two processes that only count (2.0 where both cores
are free), the work, and the counting once more. The gain is that of the work as a share of that of the counting around
it, times two: what two free cores would give. Both gains are printed beside it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from medclip.files.readers.pool import ReadingPool

COUNTS = 4_000_000

Job = Callable[..., tuple[float, float]]
"""Called with its arguments and the time at which to begin; gives when it began and when it ended."""


def begin(at: float) -> float:
    """Wait for a common start."""
    time.sleep(max(0.0, at - time.time()))
    return time.time()


def count_up(number: int, at: float) -> tuple[float, float]:
    """Count: work that needs a core and nothing else."""
    start, total = begin(at), 0
    for i in range(number):
        total += i
    return start, time.time()


def _wall(pool: ReadingPool, job: Job, calls: list[tuple[Any, ...]]) -> float:
    at = time.time() + 0.05
    found = [future.result() for future in [pool.submit(job, *arguments, at) for arguments in calls]]
    return max(end for _, end in found) - min(start for start, _ in found)


def gain(job: Job, whole: tuple[Any, ...], halves: list[tuple[Any, ...]], rounds: int) -> float:
    """Measure, print, and give the gain of two processes over one that two free cores would show.

    Args:
        job: A function that reading processes can import by name.
        whole: Arguments for one process that does everything.
        halves: Arguments for each of two processes.
        rounds: How often to measure.
    """
    machine, work = [], []
    with ReadingPool(2, 600) as pool:
        for _ in range(2):  # both processes start, import and open what they need
            _wall(pool, job, halves)
        for _ in range(rounds):
            before = _counting(pool)
            work.append(_wall(pool, job, [whole]) / _wall(pool, job, halves))
            machine.append((before + _counting(pool)) / 2)
    print(
        f"  two processes: counting gained {statistics.median(machine):.2f} ({min(machine):.2f} to {max(machine):.2f}),"
        f" reading {statistics.median(work):.2f} ({min(work):.2f} to {max(work):.2f})",
        flush=True,
    )
    return 2 * statistics.median(a / b for a, b in zip(work, machine, strict=True))


def _counting(pool: ReadingPool) -> float:
    return _wall(pool, count_up, [(2 * COUNTS,)]) / _wall(pool, count_up, [(COUNTS,)] * 2)
