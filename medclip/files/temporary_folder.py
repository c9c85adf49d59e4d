"""Folders for a while: they go with whoever made them, and those of processes that were killed go at the next start.

Each lies in a folder of its own beside a file that its process holds a lock on; the system lets go of it when the
process ends, however it ends. Whoever makes a folder looks once for such files that nobody holds. A folder without such
a file, or of another user, is never touched.

Programs that were started to work in a folder have its name in their environment, as those have that they start in
turn: with the folder they end, too, also where they outlive whoever started them.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import tempfile
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from medclip.files.output import disk_errors

PREFIX = "medclip-"
OWNER = ".medclip-owner"
"""The file that is locked."""
VARIABLE = "MEDCLIP_FOLDER"
"""Environment variable of the programs that work in a folder."""
_INSIDE = "d"
_TRIES, _PAUSE_S = 100, 0.05
"""How often programs of a folder are looked for."""


class TemporaryFolder:
    """A folder that goes when this object does, without the warning of tempfile.TemporaryDirectory.

    As a context manager it returns the path.

    Args:
        kind: Purpose of the folder; part of its name.
    """

    def __init__(self, kind: str) -> None:
        parent = tempfile.gettempdir()
        sweep(parent)
        with disk_errors(Path(parent)):
            outer = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{kind}-", dir=parent))
            lock = _own(outer)
            self.path = outer / _INSIDE
            self.path.mkdir(mode=0o700)
        self.environment = {VARIABLE: str(outer)}
        """What programs that work in the folder have in their environment."""
        self._end = weakref.finalize(self, _remove, outer, lock)

    def end_programs(self) -> None:
        """End the programs that have `environment` in theirs (on Linux); the folder stays."""
        _end_programs([self.environment[VARIABLE]])

    def close(self) -> None:
        """Remove it with all it holds; a second time nothing happens."""
        self._end()

    def __enter__(self) -> Path:
        """Return the path."""
        return self.path

    def __exit__(self, *_: object) -> None:
        """Remove it."""
        self.close()


@cache
def sweep(parent: str) -> int:
    """Remove the folders of processes that were killed, once in each process.

    Args:
        parent: Folder that temporary folders lie in.

    Returns:
        How many there were.
    """
    left: list[str] = []
    with suppress(OSError), os.scandir(parent) as entries:
        left += [entry.path for entry in entries if entry.name.startswith(PREFIX) and _is_left(entry.path)]
    if left:
        _end_programs(left)
    return sum(_remove(Path(folder), None) for folder in left)


def remove_left(folder: str, seconds: float) -> bool:
    """Remove a folder whose process ends, and the programs that work in it; return whether it went in time.

    Of a process that is killed the system closes the pipes, which its programs see, before it lets go of its locks.

    Args:
        folder: Folder as `TemporaryFolder.environment` names it.
        seconds: Seconds that its process is given to end.
    """
    deadline = time.monotonic() + seconds
    while not _is_left(folder):
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_S)
    _end_programs([folder])
    return _remove(Path(folder), None)


def _is_left(folder: str) -> bool:
    """Return whether a folder is one of ours whose process is gone."""
    try:
        facts = os.stat(folder, follow_symlinks=False)
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
            return False
        lock = os.open(os.path.join(folder, OWNER), os.O_RDWR | os.O_NOFOLLOW)
    except (AttributeError, OSError):  # no users on Windows, or no such file
        return False
    try:
        return _lock(lock)
    finally:
        os.close(lock)


def _own(folder: Path) -> int | None:
    """Return the lock of a folder; it appears locked, so that no other process takes it for one that was left."""
    draft = folder / f"{OWNER}-draft"
    lock = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    if not _lock(lock):  # a file system without locks
        os.close(lock)
        os.unlink(draft)
        return None
    os.rename(draft, folder / OWNER)
    return lock


def _lock(descriptor: int) -> bool:
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def _end_programs(folders: Sequence[str]) -> None:
    """End the programs of some folders but this one; what they start meanwhile is ended, too."""
    marks = [f"{VARIABLE}={folder}".encode() for folder in folders]
    for _ in range(_TRIES):
        programs = _programs(marks)
        for program in programs:
            with suppress(OSError):
                os.kill(program, signal.SIGKILL)
        if not programs:
            return
        time.sleep(_PAUSE_S)


def _programs(marks: Sequence[bytes]) -> list[int]:
    """Return the processes of this user, but this one, with one of some texts in their environment; none off Linux."""
    programs: list[int] = []
    with suppress(OSError, AttributeError), os.scandir("/proc") as entries:
        for entry in entries:
            with suppress(OSError):  # it has ended, or is another user's
                if entry.name.isdecimal() and entry.stat().st_uid == os.getuid() and int(entry.name) != os.getpid():
                    variables = Path(entry.path, "environ").read_bytes().split(b"\0")
                    programs += [int(entry.name)] if any(mark in variables for mark in marks) else []
    return programs


def _remove(folder: Path, lock: int | None) -> bool:
    """Remove a folder; return whether it is gone. Else it keeps the file of its owner, and goes at the next start."""
    inside = folder / _INSIDE
    shutil.rmtree(inside, ignore_errors=True)
    if not inside.exists():
        shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        os.close(lock)
    return not folder.exists()
