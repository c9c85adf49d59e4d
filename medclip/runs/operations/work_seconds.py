"""Where the time of a run goes: seconds that reading, decoding, the model and writing were at work.

Each kind of work has its own processes or threads, so that the seconds of all of them together may be more than those
that passed. What stands out is therefore a share of all work, and how busy each kind was of the time that it had.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from medclip.wording import duration, list_of, percent

KINDS = ("read", "decode", "model", "write")
"""Read: files are hashed and their headers looked at. Decode: pixels are decoded and brought to the model's size.
Model: images are encoded. Write: rows are committed, tables and report are written."""


@dataclass(frozen=True)
class WorkReport:
    """Where the time of a run went."""

    wall_s: float
    """Seconds from the first file to the last table."""
    seconds: Mapping[str, float]
    """Of each of `KINDS`, over all its processes and threads."""
    places: Mapping[str, int]
    """Processes or threads of each; reading and decoding share theirs."""

    @property
    def shares(self) -> dict[str, float]:
        """Return the share of each kind in all work, which add up to 1; zeros where nothing was done."""
        total = sum(self.seconds.values())
        return {kind: self.seconds[kind] / total if total else 0.0 for kind in KINDS}

    def busy(self, *kinds: str) -> float:
        """Return the share of their time that the processes or threads of some kinds were at work."""
        capacity = self.wall_s * self.places[kinds[0]]
        return min(1.0, sum(self.seconds[kind] for kind in kinds) / capacity) if capacity else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return plain data: `wall_s`, and of each kind its seconds, share and places."""
        shares = self.shares
        return {
            "wall_s": round(self.wall_s, 3),
            **{
                kind: {
                    "seconds": round(self.seconds[kind], 3),
                    "share": round(shares[kind], 4),
                    "places": self.places[kind],
                }
                for kind in KINDS
            },
        }

    def sentence(self) -> str:
        """Return it in words."""
        parts = list_of([f"{kind} {percent(share)}" for kind, share in self.shares.items()])
        return (
            f"Work: {parts}, in {duration(self.wall_s)}. Reading processes were busy for "
            f"{percent(self.busy('read', 'decode'))} of it, the model for {percent(self.busy('model'))}."
        )


@dataclass(eq=False)
class WorkSeconds:
    """Adds up seconds of work, from any thread."""

    clock: Callable[[], float] = time.monotonic
    places: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 1))
    _seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    _begun: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> None:
        """Let the time of the run begin."""
        self._begun = self.clock()

    def add(self, kind: str, seconds: float) -> None:
        """Add seconds of work."""
        with self._lock:
            self._seconds[kind] += seconds

    @contextmanager
    def at(self, kind: str) -> Iterator[None]:
        """Count what is done inside."""
        begun = self.clock()
        try:
            yield
        finally:
            self.add(kind, self.clock() - begun)

    def report(self, counted: Mapping[str, float] | None = None) -> WorkReport:
        """Return where the time went so far.

        Args:
            counted: Seconds of work that others count, by kind.
        """
        with self._lock:
            seconds = {kind: self._seconds[kind] + (counted or {}).get(kind, 0.0) for kind in KINDS}
        return WorkReport(0.0 if self._begun is None else self.clock() - self._begun, seconds, dict(self.places))


class TimedThreads(Executor):
    """Threads whose work is counted.

    Args:
        threads: Threads that do the work.
        work: Counter of the seconds of work.
        kind: Kind of the work.
    """

    def __init__(self, threads: Executor, work: WorkSeconds, kind: str) -> None:
        self._threads, self._work, self._kind = threads, work, kind

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a function called."""
        return self._threads.submit(self._timed, fn, *args, **kwargs)

    def _timed(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with self._work.at(self._kind):
            return fn(*args, **kwargs)
