"""One process at a time writes to a folder.

On a disk the folder itself is locked. On a network drive the lock of a folder is known to its own machine alone; there
a file in it is, which the drive's server tells other machines of (NFS and SMB do, unless mounted with `nolock`).
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medclip.errors import MedclipError, Reason

# What kind of file system a folder lies on: some things that are safe on a disk are not on a network drive.

MOUNTS = Path("/proc/self/mountinfo")
"""Linux's own table of what is mounted where; see proc_pid_mountinfo(5)."""
_NETWORK = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "9p", "virtiofs", "vboxsf", "prl_fs", "vmhgfs"),
        *("ceph", "lustre", "gpfs", "glusterfs", "beegfs", "orangefs", "pvfs2", "ocfs2", "gfs2", "panfs", "davfs"),
    }
)
_LOCAL_FUSE = frozenset(
    {"fuseblk", "fuse.overlayfs", "fuse.fuse-overlayfs", "fuse.lxcfs", "fuse.ntfs-3g", "fuse.exfat"}
)
_ESCAPED = re.compile(r"\\([0-7]{3})")


def network_file_system(folder: Path) -> str | None:
    """Return the kind of a file system that other machines may write to, such as "nfs4"; None for one of this machine.

    What is mounted by FUSE counts as such, but for the kinds that are known to be disks: it is a drive elsewhere as a
    rule (sshfs, s3fs, rclone), and mostly without memory that processes share.

    Args:
        folder: Folder that is asked about; it need not exist.

    Returns:
        The kind; None also where the system has no such table.
    """
    kind = _kind_of(os.path.realpath(folder))
    is_fuse = kind is not None and kind.startswith("fuse") and kind not in _LOCAL_FUSE
    return kind if kind in _NETWORK or is_fuse else None


def _kind_of(path: str) -> str | None:
    """Return the type of the file system mounted nearest above a path."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    nearest, kind = "", None
    for line in lines:
        head, separator, tail = line.partition(" - ")
        columns, kinds = head.split(), tail.split()
        if not separator or len(columns) < 5 or not kinds:
            continue
        place = _ESCAPED.sub(lambda match: chr(int(match[1], 8)), columns[4])
        is_above = place == "/" or path == place or path.startswith(f"{place}/")
        if is_above and len(place) >= len(nearest):  # of two at one place the later one is seen
            nearest, kind = place, kinds[0]
    return kind


# One process at a time writes to a folder.
#
# On a disk the folder itself is locked. On a network drive the lock of a folder is known to its own machine alone;
# there a file in it is, which the drive's server tells other machines of (NFS and SMB do, unless mounted with
# `nolock`).

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
