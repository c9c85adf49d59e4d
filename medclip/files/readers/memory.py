"""How much memory there is, how much a process holds, and what all processes of one call may hold together.

A file that needs 12 GB is no reason to have the system kill the run, nor are sixteen files of 1 GB at once. Linux only:
elsewhere no process can be asked, and there is no budget.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

SHARE = 0.6
"""Of what the machine or the cgroup has, where nothing else is asked for. The rest is the page cache's, that keeps
files quick to read, and other people's."""
LEAST_BYTES = 512 * 1000**2
"""What reading may take beside a parent that holds the whole budget by itself: most files need less."""
NEAR = 0.85
"""Share of the budget from which on no job begins beside another."""
FIRST_GUESS_BYTES = 128 * 1000**2
"""What a job is expected to need until one was seen: a process that has read one film holds 60 to 200 MB."""
_FORGET = 0.98
"""What is expected falls by 2 % with each smaller job: large files mostly come in rows."""
_SAMPLE_S = 0.05
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def machine_memory_bytes(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the memory of the machine, or of the cgroup (v1 or v2) that this process is in, if that is less.

    Args:
        proc: Folder in which the system describes processes.
        groups: Folder of the system's cgroups.

    Returns:
        None where the system does not say.
    """
    try:
        total = _PAGE_BYTES * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        lines = []
    limits = [total]
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            files, root = ("memory.max", "memory.high"), groups
        elif "memory" in controllers.split(","):
            files, root = ("memory.limit_in_bytes",), groups / "memory"
        else:
            continue
        # A limit of any group above holds as well. In a container the path is often the host's, and only its root is
        # there.
        folder = root / group.lstrip("/")
        for place in (folder, *folder.parents):
            if place.is_relative_to(root):
                limits += [limit for name in files if (limit := _limit(place / name))]
    return min(limits)


def budget_bytes(wanted: int | None) -> int | None:
    """Return what all processes of a call may hold: what is wanted, else a share of what there is, if that is known."""
    machine = machine_memory_bytes()
    return wanted or (None if machine is None else int(SHARE * machine))


def _limit(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such group, or the word "max"
        return None


def held_bytes(pid: int) -> int:
    """Return the memory that a process alone holds: resident and neither shared nor a file's; 0 where unknown."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            _, resident, shared, *_ = file.read().split()
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * _PAGE_BYTES


def gigabytes(size: float) -> str:
    """Write a size as a person would.

    Example:
        >>> gigabytes(7_960_000_000), gigabytes(312_000_000)
        ('8.0 GB', '0.31 GB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e9:.2g} GB"


class Holder(Protocol):
    """Whoever has a reading process, and perhaps a job in it."""

    pid: int
    """0 without a process."""

    @property
    def busy(self) -> bool:
        """Whether it has a job."""
        ...


class MemoryBudget:
    """What the processes of one pool and the process that has the pool may hold together.

    Not for several threads at once: who asks has a lock.

    Args:
        total_bytes: The budget.
        measure: Function from the number of a process to the bytes that it holds.
        clock: Function that returns seconds.
    """

    def __init__(
        self,
        total_bytes: int,
        measure: Callable[[int], int] = held_bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total_bytes = total_bytes
        self._measure, self._clock = measure, clock
        self._expected = float(FIRST_GUESS_BYTES)
        self.parent_bytes = 0
        """What this process held at the last look."""
        self._held: dict[int, int] = {}
        self._peak: dict[int, int] = {}
        self._sampled_at = -1.0

    @property
    def for_reading_bytes(self) -> int:
        """What the processes that read may hold beside this one, at the last look."""
        return max(self.total_bytes - self.parent_bytes, LEAST_BYTES)

    @property
    def is_taken_by_parent(self) -> bool:
        """Whether this process alone leaves less for reading than a file may need."""
        return self.total_bytes - self.parent_bytes < LEAST_BYTES

    def has_room(self, holders: Iterable[Holder]) -> bool:
        """Return whether another job may begin beside those that run."""
        self._look(holders)
        taken = sum(
            max(self._held.get(h.pid, 0), self._expected) if h.busy else self._held.get(h.pid, 0) for h in holders
        )
        return taken + self._expected <= NEAR * self.for_reading_bytes

    def is_exceeded_by(self, holder: Holder, holders: Iterable[Holder]) -> bool:
        """Return whether all hold more than they may, and this one the most of those that work."""
        self._look(holders)
        if sum(self._held.values()) <= self.for_reading_bytes:
            return False
        return holder.pid == max((h.pid for h in holders if h.busy), key=lambda pid: self._held.get(pid, 0))

    def learn(self, holder: Holder, num_holders: int) -> bool:
        """Look at a process whose job is done.

        Returns:
            Whether it keeps more than its even share, and should rather be replaced by a fresh one.
        """
        held = self._measure(holder.pid)
        self._held[holder.pid] = held
        self._expected = max(self._peak.pop(holder.pid, 0), held, self._expected * _FORGET)
        return held > max(FIRST_GUESS_BYTES, self.for_reading_bytes / num_holders)

    def forget(self, pid: int) -> None:
        """Drop a process that has ended."""
        self._held.pop(pid, None)
        self._peak.pop(pid, None)

    def _look(self, holders: Iterable[Holder]) -> None:
        now = self._clock()
        if now - self._sampled_at < _SAMPLE_S:
            return
        self._sampled_at = now
        self.parent_bytes = self._measure(os.getpid())
        self._held = {h.pid: self._measure(h.pid) for h in holders if h.pid}
        for pid, held in self._held.items():
            self._peak[pid] = max(self._peak.get(pid, 0), held)
