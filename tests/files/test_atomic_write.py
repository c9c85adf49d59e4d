"""Result files are whole or not there, and what goes wrong is named with the folder."""

from __future__ import annotations

import errno
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medclip.errors import MedclipError, Reason
from medclip.files.atomic_write import parquet_bytes, put


def test_a_file_is_replaced_whole_and_no_draft_is_left(tmp_path: Path) -> None:
    target = tmp_path / "parts" / "a.json"
    put(target, b"old", tmp_path)
    put(target, b"new", tmp_path)
    assert target.read_bytes() == b"new"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSPC, Reason.DISK_FULL), (errno.EROFS, Reason.WRONG_USE)], ids=["full", "read-only"]
)
def test_what_cannot_be_written_leaves_the_old_file_and_names_the_folder(
    number: int, reason: Reason, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.json"
    put(target, b"old", tmp_path)

    def fails(self: Path, content: bytes) -> int:
        raise OSError(number, "it fails")

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(MedclipError) as caught:
        put(target, b"new", tmp_path)
    assert (caught.value.reason, caught.value.where) == (reason, str(tmp_path))
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_equal_tables_give_equal_bytes_that_parquet_reads() -> None:
    table = pa.table({"x": [1, 2, None], "y": ["a", "b", "c"]})
    assert parquet_bytes(table) == parquet_bytes(table)
    assert pq.read_table(pa.BufferReader(parquet_bytes(table))).equals(table)
