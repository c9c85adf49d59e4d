"""One process at a time writes to a folder.

On a disk the folder itself is locked. On a network drive the lock of a folder is known to its own machine alone; there
a file in it is, which the drive's server tells other machines of (NFS and SMB do, unless mounted with `nolock`).
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medclip.errors import MedclipError, Reason
from medclip.files.disk.mounts import network_file_system

_TRY_AGAIN_S = 0.1
LOCK = ".medclip-lock"
"""Name of that file. It stays: of two who delete and make a lock's file, both have one."""


def lock_folder(folder: Path, tries: int = 5) -> int | None:
    """Be the one that writes to a folder; the system lets go when the process ends, however it ends.

    Returns:
        What to close when done; None where the system has no such locks.

    Raises:
        MedclipError: BUSY.
    """
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        return None
    try:
        descriptor = _open(folder, make=tries > 1)
    except OSError:
        if tries == 1:  # of one who only asks: nobody wrote here yet, or others alone may
            return None
        raise
    for attempt in range(tries):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            if e.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return descriptor  # a file system without locks
            time.sleep(_TRY_AGAIN_S if attempt < tries - 1 else 0)
        else:
            return descriptor
    os.close(descriptor)
    raise MedclipError(Reason.BUSY, "another medclip is writing to this folder.", where=folder, hint="Let it finish.")


def _open(folder: Path, *, make: bool) -> int:
    if network_file_system(folder) is None:
        return os.open(folder, os.O_RDONLY)
    return os.open(folder / LOCK, os.O_RDWR | (os.O_CREAT if make else 0), 0o600)  # NFS locks what is open for writing


@contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """Be the one that writes to a folder for as long as the context lasts.

    Raises:
        MedclipError: BUSY.
    """
    descriptor = lock_folder(folder)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Return whether a process writes to a folder now."""
    try:
        descriptor = lock_folder(folder, tries=1)
    except MedclipError:
        return True
    if descriptor is not None:
        os.close(descriptor)
    return False
