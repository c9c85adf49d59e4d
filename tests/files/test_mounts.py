"""Which file systems are drives of a network, by a table of mounts as Linux writes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from medclip.files import locks
from medclip.files.locks import network_file_system

_TABLE = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /mnt/share rw,relatime shared:2 - nfs4 pacs:/export rw,vers=4.2
31 30 8:17 / /mnt/share/scratch rw - xfs /dev/sdb1 rw
32 22 0:41 / /mnt/with\\040blank rw master:3 propagate_from:2 - cifs //pacs/x rw
33 22 0:42 / /mnt/ssh rw - fuse.sshfs user@host:/ rw
34 22 8:33 / /mnt/stick rw - fuseblk /dev/sdc1 rw
35 22 8:49 / /mnt/twice rw - ext4 /dev/sdd1 rw
36 22 0:43 / /mnt/twice rw - lustre mgs:/fs rw
a line of something else
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/home/a", None),
        ("/mnt/share", "nfs4"),
        ("/mnt/share/a/b", "nfs4"),
        ("/mnt/shared", None),
        ("/mnt/share/scratch/a", None),
        ("/mnt/with blank/a", "cifs"),
        ("/mnt/ssh/a", "fuse.sshfs"),
        ("/mnt/stick/a", None),
        ("/mnt/twice", "lustre"),
    ],
)
def test_the_mount_nearest_above_a_folder_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, kind: str | None
) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(_TABLE)
    monkeypatch.setattr(locks, "MOUNTS", table)
    assert network_file_system(Path(folder)) == kind


def test_a_link_to_a_network_drive_lies_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "drive").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "drive")
    table = tmp_path / "mountinfo"
    table.write_text(f"1 0 8:1 / / rw - ext4 x rw\n2 1 0:1 / {(tmp_path / 'drive').resolve()} rw - nfs x rw\n")
    monkeypatch.setattr(locks, "MOUNTS", table)
    assert network_file_system(tmp_path / "link" / "out") == "nfs"
    assert network_file_system(tmp_path) is None


def test_a_system_without_such_a_table_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "MOUNTS", tmp_path / "nowhere")
    assert network_file_system(tmp_path) is None
