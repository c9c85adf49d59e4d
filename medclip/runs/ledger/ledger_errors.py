"""What SQLite says of a full disk, a lock or a foreign file, as one sentence each."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from medclip.errors import MedclipError, Reason
from medclip.files.discover import LEDGER
from medclip.files.output import disk_error, in_use

ELSEWHERE = "Name another folder."
_NO_ROOM_BYTES = 1_000_000
_PAGES_BYTES = 1 << 16
"""SQLite writes in pages; a file that a limit stopped is this much smaller than the limit at most."""


@contextlib.contextmanager
def ledger_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk and a locked or foreign ledger into one sentence each."""
    try:
        yield
    except sqlite3.DatabaseError as e:
        text = str(e)
        error: MedclipError | None = None
        if _is_read_only(folder):
            error = disk_error(OSError(errno.EROFS, text), folder)
        elif "full" in text or ("disk I/O" in text and shutil.disk_usage(folder).free < _NO_ROOM_BYTES):
            error = disk_error(OSError(errno.ENOSPC, text), folder)
        elif "disk I/O" in text and _is_as_large_as_allowed(folder):
            error = disk_error(OSError(errno.EFBIG, text), folder)
        elif "locked" in text:
            error = MedclipError(
                Reason.BUSY, "another medclip is writing to this folder.", where=folder, hint="Let it finish."
            )
        elif "not a database" in text or "malformed" in text:
            error = in_use(folder, f"{LEDGER} in this folder is not a ledger that medclip can read", ELSEWHERE)
        elif "disk I/O" in text:
            error = disk_error(OSError(errno.EIO, text), folder)
        elif "readonly" in text or "unable to open" in text:
            error = disk_error(OSError(errno.EACCES, text), folder)
        if error is None:
            raise
        raise error from e


def _is_read_only(folder: Path) -> bool:
    """Return whether the file system takes no writing any more; SQLite says that in three ways."""
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except (AttributeError, OSError):  # Windows; a drive that is gone
        return False


def _is_as_large_as_allowed(folder: Path) -> bool:
    """Return whether the ledger has the size that files may have (`ulimit -f`); SQLite does not say why it failed."""
    try:
        import resource
    except ImportError:  # no such limits on Windows
        return False
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    sizes = [path.stat().st_size for path in folder.glob(f"{LEDGER}*")]
    return limit != resource.RLIM_INFINITY and max(sizes, default=0) + _PAGES_BYTES > limit
