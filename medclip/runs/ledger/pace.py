"""How fast a run goes: some moments of its present call, with how many files had their row by then."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

PACE = "pace"
"""Under which a ledger remembers it."""
EXPECTED = "expected"
"""How many files there are in all, as far as that is known."""
HALVED = "halved"
"""How many batches the memory did not hold, so that halves of them were computed."""
_EVERY_S = 5.0
_SPAN_S = 600.0
"""Earlier moments say little of how fast it is now: one folder has slices of a CT, the next one whole slides."""


class PaceKeeper:
    """Notes moments while a run goes on."""

    def __init__(self) -> None:
        self._num_files = 0
        self._moments: list[tuple[float, int]] = [(time.time(), 0)]

    def commit(self, num_files: int) -> list[tuple[float, int]] | None:
        """Count files that have their row now; return what is to be remembered, None where that can wait."""
        self._num_files += num_files
        now = time.time()
        if len(self._moments) > 1 and 0 <= now - self._moments[-1][0] < _EVERY_S:
            return None
        self._moments = [
            *(moment for moment in self._moments if 0 <= now - moment[0] < _SPAN_S),
            (now, self._num_files),
        ]
        return self._moments


@dataclass(frozen=True)
class Pace:
    """How fast a run goes."""

    files_per_second: float
    """Over the last minutes."""
    last_at: float
    """When its last files got their row, in seconds since 1970."""

    def seconds_left(self, num_files: int) -> float | None:
        """Return how long some files will take, if it goes on so; None where it stands still."""
        return num_files / self.files_per_second if self.files_per_second > 0 else None


def read_pace(moments: Sequence[Sequence[float]] | None) -> Pace | None:
    """Return the pace that a ledger remembers; None where there were no two moments.

    The time before the first rows counts only until there are others: it is mostly that of the start, which loads the
    model and comes once.

    Example:
        >>> read_pace([(1000.0, 0), (1010.0, 50)]).files_per_second
        5.0
        >>> read_pace([(1000.0, 0), (1010.0, 50), (1015.0, 150)]).files_per_second
        20.0
    """
    if not moments or len(moments) < 2:
        return None
    has_started = len(moments) > 2 and moments[0][1] == 0
    (began_at, before), (last_at, done) = moments[1 if has_started else 0], moments[-1]
    seconds = last_at - began_at
    return Pace((done - before) / seconds, last_at) if seconds > 0 else None
