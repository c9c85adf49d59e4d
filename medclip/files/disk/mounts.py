"""What kind of file system a folder lies on: some things that are safe on a disk are not on a network drive."""

from __future__ import annotations

import os
import re
from pathlib import Path

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
