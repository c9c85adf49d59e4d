"""Folders for a while: they go with whoever made them, and those of processes that were killed go at the next start.

Each lies in a folder of its own beside a file that its process holds a lock on; the system lets go of it when the
process ends, however it ends. Whoever makes a folder looks once for such files that nobody holds. A folder without such
a file, or of another user, is never touched.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from contextlib import suppress
from functools import cache
from pathlib import Path

from medclip.files.output import disk_errors

PREFIX = "medclip-"
OWNER = ".medclip-owner"
"""The file that is locked."""
_INSIDE = "d"


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
        self._end = weakref.finalize(self, _remove, outer, lock)

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
    num_removed = 0
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and _is_left(entry):
                shutil.rmtree(entry.path, ignore_errors=True)
                num_removed += 1
    return num_removed


def _is_left(entry: os.DirEntry[str]) -> bool:
    """Return whether a folder is one of ours whose process is gone."""
    try:
        if not entry.is_dir(follow_symlinks=False) or entry.stat(follow_symlinks=False).st_uid != os.getuid():
            return False
        lock = os.open(os.path.join(entry.path, OWNER), os.O_RDWR | os.O_NOFOLLOW)
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


def _remove(folder: Path, lock: int | None) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        os.close(lock)
