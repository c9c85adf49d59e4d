"""The ledger: all of a chunk or nothing, one writer and any number of readers, a full disk in one sentence."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from medclip.errors import MedclipError, Reason
from medclip.files import locks
from medclip.files.locks import is_locked
from medclip.runs.ledger.ledger import FILE_NAME, Ledger
from medclip.runs.rows import DONE, ChunkResult, FileRow, Look, ScoreRow, Thumbnail
from medclip.sample import FileRef
from tests.kits.ledger import fill_ledger


def _rows(index: int, size: int = 10) -> tuple[list[FileRow], list[ScoreRow], list[Thumbnail]]:
    return (
        [FileRow(index + 1, f"{index}.png", "0" * 64, 5, "png", "scored", None, None, study=f"s{index}")],
        [ScoreRow(f"s{index}", None, "xray", "t", "c", "multilabel", 0.5, 0.0, 1, "m", "1", "p")],
        [Thumbnail(index + 1, b"j" * size, False)],
    )


def test_what_was_committed_is_there_after_opening_again(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.remember({"identity": {"pack": "abc"}})
        fill_ledger(ledger, *_rows(0))
    with Ledger(tmp_path) as ledger:
        assert ledger.get("identity") == {"pack": "abc"}
        assert [row.path for row in ledger.files()] == ["0.png"]
        (row,) = ledger.scores_of("s0")
        assert (row.class_, row.files, row.num_files) == ("c", '["0.png"]', 1)
        assert ledger.counts() == {"files": 1, "scored": 1, "skipped": 0, "failed": 0, "studies": 1}


def test_a_chunk_that_fails_half_way_leaves_what_there_was(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        fill_ledger(ledger, *_rows(0))
        files, scores, _ = _rows(0)
        clash = ChunkResult((*files, *files), tuple(scores), ())
        with pytest.raises(Exception, match="UNIQUE"):
            ledger.commit(clash)
        assert ledger.counts()["files"] == 1
        assert ledger.thumbnail(1) is not None


def test_a_chunk_that_comes_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        fill_ledger(ledger, *_rows(0))
        files, scores, thumbnails = _rows(0)
        ledger.commit(ChunkResult(tuple(files), tuple(scores), tuple(thumbnails)))
        assert ledger.counts() == {"files": 1, "scored": 1, "skipped": 0, "failed": 0, "studies": 1}
        assert len(ledger.scores_of("s0")) == 1


def test_a_second_writer_is_refused_and_a_reader_is_not(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        fill_ledger(ledger, *_rows(0))
        with pytest.raises(MedclipError) as caught:
            Ledger(tmp_path)
        with Ledger(tmp_path, create=False) as reader:
            assert reader.counts()["files"] == 1
            with pytest.raises(Exception, match="readonly"):
                reader._db.execute("DELETE FROM files")
    assert caught.value.reason is Reason.BUSY
    Ledger(tmp_path).close()


def test_a_file_that_is_no_ledger_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"something of somebody else's" * 100)
    with pytest.raises(MedclipError) as caught:
        Ledger(tmp_path)
    assert caught.value.reason is Reason.OUTPUT_IN_USE
    assert (tmp_path / FILE_NAME).read_bytes().startswith(b"something")


@pytest.mark.parametrize("table", ["accounts (a)", "meta (a, b)", "meta (key, value)", "meta (key TEXT, value TEXT)"])
@pytest.mark.parametrize("create", [True, False])
def test_a_database_of_somebody_else_is_left_alone(tmp_path: Path, table: str, create: bool) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as database:
        database.execute(f"CREATE TABLE {table}")
        for other in ("files", "scores"):
            database.execute(f"CREATE TABLE {other} (x)")
        database.commit()
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(MedclipError, match="is not a ledger") as caught:
        Ledger(tmp_path, create=create)
    assert caught.value.reason is Reason.OUTPUT_IN_USE
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_a_run_that_was_stopped_before_its_ledger_was_made_can_begin(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).touch()
    with pytest.raises(MedclipError) as caught:
        Ledger(tmp_path, create=False)
    assert caught.value.reason is Reason.MISSING_FILE
    Ledger(tmp_path).close()
    Ledger(tmp_path, create=False).close()


def test_a_window_is_open_until_all_of_it_is_done_whatever_is_known_of_later_ones(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        for name in ("a", "b", "c"):
            (file,) = ledger.register([FileRef(Path(name), name)])
            if name == "a":
                ledger.tie([(file.id, "study of a", False)])
        assert ledger.open_windows() == [0, 1, 2]


def test_files_that_are_not_read_yet_or_are_read_again_are_not_done(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        for index in (0, 1):
            fill_ledger(ledger, *_rows(index))
        ledger.register([FileRef(Path("b"), "b")])
        assert ledger.num_done() == 2
        ledger.open_again({1: None})
        assert ledger.num_done() == 1


@pytest.mark.slow
def test_a_ledger_that_is_as_large_as_files_may_be_is_no_broken_disk(tmp_path: Path) -> None:
    """SQLite calls it an input/output error; the limit holds for a process, so it is one of its own."""
    program = """if True:
        import resource, sys
        from pathlib import Path
        from medclip.errors import MedclipError
        from medclip.runs.ledger.ledger import Ledger
        from tests.kits.ledger import fill_ledger
        from tests.runs.ledger.test_ledger import _rows

        with Ledger(Path(sys.argv[1])) as ledger:
            resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, resource.RLIM_INFINITY))
            try:
                fill_ledger(ledger, *_rows(0, size=1_000_000))
            except MedclipError as error:
                print(error.reason, error.message)
    """
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("disk_full this cannot be written: the file is larger than this file system or")


def test_a_full_disk_keeps_what_was_committed(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        fill_ledger(ledger, *_rows(0))
        (pages,) = ledger._db.execute("PRAGMA page_count").fetchone()
        ledger._db.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(MedclipError) as caught:
            fill_ledger(ledger, *_rows(1, size=1_000_000))
        assert caught.value.reason is Reason.DISK_FULL
    with Ledger(tmp_path) as ledger:
        assert ledger.counts()["files"] == 1
        (again,) = ledger.known(["1.png"]).values()
        files, scores, thumbnails = _rows(1)
        ledger.commit(ChunkResult(tuple(files), tuple(scores), tuple(thumbnails)))
        assert (again.id, ledger.counts()["files"]) == (2, 2)


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the table of mounts calls a network drive."""
    table = tmp_path / "mountinfo"
    (tmp_path / "drive").mkdir()
    table.write_text(f"1 0 8:1 / / rw - ext4 x rw\n2 1 0:1 / {(tmp_path / 'drive').resolve()} rw - nfs4 x rw\n")
    monkeypatch.setattr(locks, "MOUNTS", table)
    return tmp_path / "drive"


def test_on_a_network_drive_there_is_no_write_ahead_log_and_readers_and_a_second_writer_fare_as_ever(
    drive: Path,
) -> None:
    with Ledger(drive) as ledger:
        assert (ledger.drive, ledger._db.execute("PRAGMA journal_mode").fetchone()) == ("nfs4", ("truncate",))
        fill_ledger(ledger, *_rows(0))
        assert is_locked(drive)
        with pytest.raises(MedclipError) as caught:
            Ledger(drive)
        assert caught.value.reason is Reason.BUSY
        with Ledger(drive, create=False) as reader:
            assert reader.counts()["files"] == 1
            fill_ledger(ledger, *_rows(1))
            assert reader.counts()["files"] == 2
        assert not list(drive.glob("*-wal"))
    assert not is_locked(drive)


def test_a_ledger_may_be_copied_to_a_network_drive_and_back(drive: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with Ledger(disk) as ledger:
        fill_ledger(ledger, *_rows(0))
        shutil.copytree(disk, drive, dirs_exist_ok=True)  # as after a kill: with its write-ahead log
    assert list(drive.glob("*-wal"))
    with Ledger(drive) as ledger:
        assert ledger.counts()["files"] == 1
        fill_ledger(ledger, *_rows(1))
    assert not list(drive.glob("*-wal"))
    shutil.copytree(drive, disk, dirs_exist_ok=True)
    with Ledger(disk) as ledger:
        assert ledger.counts()["files"] == 2
        assert ledger._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_file_that_is_done_stays_done_when_it_is_looked_at_again(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        fill_ledger(ledger, *_rows(0))
        (file,) = ledger.known(["0.png"]).values()
        assert file.state >= DONE
        ledger.looked_at([Look(file.id, file.stamp, "0" * 64, "png")])
        assert ledger.known(["0.png"])["0.png"].state == file.state
        assert ledger.open_windows() == []
