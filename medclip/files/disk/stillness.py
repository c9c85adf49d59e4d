"""Which files of a folder that others write to have come whole: those that nothing has touched for a while.

A file counts as moving until its size, its time of change and its time of status change have been the same for
`settle_s` seconds. What lies in one folder belongs together (a study, a series), so that a folder with a moving file in
it is held back as a whole, but not for ever: files of a folder that something always comes into, such as the one that
is watched, are held back one by one.

Limits: a sender that pauses longer than `settle_s` in the middle of a file is taken to have finished. The file is then
read as it is, and again when it has changed.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medclip.files.discover import walk

_MOST_HELD = 20
"""A folder is held back for at most so many times `settle_s`."""


@dataclass(frozen=True)
class Look:
    """What a folder looked like at one moment."""

    num_still: int
    """Files that may be read."""
    digest: str
    """Changes when another file may be read, or one that may be read has changed."""
    moving: tuple[Path, ...]
    """Files and folders that are to be left out."""


@dataclass
class Stillness:
    """Looks at a folder again and again.

    Args:
        root: The folder.
        settle_s: Seconds for which nothing may have changed.
        exclude: Folders that are no part of it, such as an output folder.
        now: Function that returns seconds since the epoch.
        follow_links: Whether links out of the root are followed, as in `medclip.files.discover.walk`.
    """

    root: Path
    settle_s: float
    exclude: Sequence[Path] = ()
    now: Callable[[], float] = time.time
    follow_links: bool = False
    _seen: dict[str, tuple[tuple[int, int, int], float]] = field(default_factory=dict)
    """Files that moved at the last look: size and times, and since when they are so."""
    _held: dict[str, float] = field(default_factory=dict)
    """Folders that were held back at the last look, and since when."""

    def look(self) -> Look:
        """Look at every file.

        Raises:
            MedclipError: MISSING_FILE where the folder is gone.
        """
        now = self.now()
        seen: dict[str, tuple[tuple[int, int, int], float]] = {}
        held: dict[str, float] = {}
        moving: list[Path] = []
        moving_in: set[str] = set()
        for ref in walk(self.root, exclude=self.exclude, follow_links=self.follow_links):
            if ref.problem is None and self._moves(ref.path, ref.name, now, seen):
                moving.append(ref.path)
                moving_in.add(ref.name.rpartition("/")[0])
        for folder in moving_in - {""}:
            since = self._held.get(folder, now)
            held[folder] = since
            if now - since <= _MOST_HELD * self.settle_s:
                moving.append(self.root / folder)
        self._seen, self._held = seen, held
        num_still, state = 0, hashlib.sha256()
        for ref in walk(self.root, exclude=(*self.exclude, *moving), follow_links=self.follow_links):
            num_still += 1
            state.update(f"{ref.name}\0{ref.stamp}\n".encode())
        return Look(num_still, state.hexdigest(), tuple(moving))

    def _moves(self, path: Path, name: str, now: float, seen: dict[str, tuple[tuple[int, int, int], float]]) -> bool:
        try:
            status = os.stat(path)
        except OSError:  # gone since it was listed
            return True
        if now - status.st_ctime >= self.settle_s:
            return False
        state = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known, since = self._seen.get(name, (state, now))
        since = since if known == state else now
        seen[name] = (state, since)  # also by our own clock, where that of a network drive is another one
        return now - since < self.settle_s
