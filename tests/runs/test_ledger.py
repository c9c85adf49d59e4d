"""The ledger: all of a chunk or nothing, one writer, a full disk in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from medclip.errors import MedclipError, Reason
from medclip.runs.ledger import FILE_NAME, ChunkResult, Ledger
from medclip.runs.rows import FileRow, ScoreRow, Thumbnail


def _chunk(index: int, size: int = 10) -> ChunkResult:
    return ChunkResult(
        index,
        (FileRow(index + 1, f"{index}.png", "0" * 64, 5, "png", "scored", None, None, study=f"s{index}"),),
        (ScoreRow(f"s{index}", None, "xray", "t", "c", "multilabel", 0.5, 0.0, 1, "m", "1", "p"),),
        (Thumbnail(index + 1, b"j" * size, False),),
    )


def test_what_was_committed_is_there_after_opening_again(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.remember({"identity": {"files": "abc"}})
        ledger.commit(_chunk(0))
    with Ledger(tmp_path) as ledger:
        assert ledger.finished_chunks() == {0}
        assert ledger.get("identity") == {"files": "abc"}
        assert [row.path for row in ledger.files()] == ["0.png"]
        assert [row.class_ for row in ledger.scores_of("s0")] == ["c"]
        assert ledger.counts() == {"files": 1, "scored": 1, "skipped": 0, "failed": 0, "studies": 1}


def test_a_chunk_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.commit(_chunk(0))
        clash = ChunkResult(1, _chunk(0).files, (), ())
        with pytest.raises(Exception, match="UNIQUE"):
            ledger.commit(clash)
        assert ledger.finished_chunks() == {0}


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path), pytest.raises(MedclipError) as caught:
        Ledger(tmp_path)
    assert caught.value.reason is Reason.OUTPUT_IN_USE


def test_a_file_that_is_no_ledger_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"something of somebody else's" * 100)
    with pytest.raises(MedclipError) as caught:
        Ledger(tmp_path)
    assert caught.value.reason is Reason.OUTPUT_IN_USE
    assert (tmp_path / FILE_NAME).read_bytes().startswith(b"something")


def test_a_full_disk_keeps_what_was_committed(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.commit(_chunk(0))
        (pages,) = ledger._db.execute("PRAGMA page_count").fetchone()
        ledger._db.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(MedclipError) as caught:
            ledger.commit(_chunk(1, size=1_000_000))
        assert caught.value.reason is Reason.DISK_FULL
    with Ledger(tmp_path) as ledger:
        assert ledger.finished_chunks() == {0}
        ledger.commit(_chunk(1))
