"""Drives: what one does not deliver is tried again and has its row; results on one of a network are those on a disk."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

import medclip
from medclip.files import locks
from medclip.files.readers import worker
from medclip.progress import Silent
from medclip.runs.ledger.ledger import Ledger
from medclip.settings import Settings
from tests.kits.scoring import digests, write_png

NEVER_DELIVERED = Path("/proc/self/mem")
"""Its first page is mapped by nobody: reading it is an input/output error of the system, on Linux."""


@pytest.mark.skipif(not NEVER_DELIVERED.exists(), reason="only Linux has a file that cannot be read")
def test_a_file_that_cannot_be_delivered_is_tried_again_and_its_row_says_so(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "PAUSES_S", (0.01, 0.01))
    root, out = tmp_path / "in", tmp_path / "out"
    write_png(root / "a.png", 1)
    (root / "b.png").symlink_to(NEVER_DELIVERED)
    following = Settings(follow_links=True)
    run = medclip.score(root, out, model=pack, modality="xray", workers=1, settings=following)
    assert (run.counts["scored"], run.counts["failed"]) == (1, 1)
    (row,) = [row for row in pq.read_table(out / "files.parquet").to_pylist() if row["status"] == "failed"]
    assert (row["path"], row["reason"], row["format"]) == ("b.png", "read_error", "unknown")
    assert "Input/output error" in row["message"]
    with Ledger(out, create=False) as ledger:
        attempts = dict(ledger._db.execute("SELECT name, attempts FROM inputs"))
    assert attempts == {"a.png": 1, "b.png": 3}
    assert medclip.runs.status(out).num_tried_again == 1
    before = digests(out)
    again = medclip.score(root, out, model=pack, modality="xray", workers=1, settings=following)
    assert again.already_finished
    assert digests(out) == before
    (root / "b.png").unlink()
    write_png(root / "b.png", 2)
    assert medclip.retry(out, reason="read_error", workers=1).counts["failed"] == 0


class _Notes(Silent):
    """Keeps what is shown."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_results_on_a_network_drive_are_those_on_a_disk_and_the_run_says_where_they_lie(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_png(tmp_path / "in" / "a.png", 1)
    drive, disk, table = tmp_path / "drive", tmp_path / "disk", tmp_path / "mountinfo"
    table.write_text(f"1 0 8:1 / / rw - ext4 x rw\n2 1 0:1 / {drive.resolve()} rw - cifs x rw\n")
    monkeypatch.setattr(locks, "MOUNTS", table)
    drive_notes = {}
    for out in (drive, disk):
        progress = _Notes()
        medclip.score(tmp_path / "in", out, model=pack, modality="xray", workers=1, progress=progress)
        drive_notes[out] = [note for note in progress.notes if "network drive (cifs)" in note]
    assert (len(drive_notes[drive]), drive_notes[disk]) == (1, [])
    assert digests(drive) == digests(disk)
