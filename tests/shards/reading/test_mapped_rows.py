"""Rows of a split are written once for all processes of a node, and read back as samples.parquet has them."""

from __future__ import annotations

import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medclip.shards.folder import LICENSE, SAMPLE_COLUMNS, write_index
from medclip.shards.reading import mapped_rows
from medclip.shards.reading.samples import ShardReader

SHARDS = [f"train-{i:06d}.tar" for i in range(5)]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDCLIP_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "medclip" / "cache" / "rows"


def _table(num_rows: int) -> dict[str, list[Any]]:
    """Columns of samples.parquet: every third row is of another split; sources, patients and licenses are missing."""
    rows = range(num_rows)
    return {
        "key": [f"k{i}" for i in rows],
        "split": ["test" if i % 3 == 0 else "train" for i in rows],
        "shard": ["test-000000.tar" if i % 3 == 0 else SHARDS[i * 5 // num_rows] for i in rows],
        "offset": [i * 1024 + 2**33 for i in rows],
        "size": [i % 999 for i in rows],
        "sha256": [f"{i:064x}" for i in rows],
        "patient": [f"p{i // 2}" if i % 7 else None for i in rows],
        "modality": ["ct" if i > num_rows // 2 else None for i in rows],
        "adapter": ["dicom" for i in rows],
        "source": ["" if i % 5 == 0 else None if i % 4 == 0 else f"s{i % 11}" for i in rows],
        LICENSE: [None if i % 2 else "CC0" for i in rows],
    }


def _folder(folder: Path, num_rows: int) -> list[dict[str, Any]]:
    """Write a shard folder without tars; returns its rows of the training split."""
    table = pa.table(_table(num_rows))
    names = {"test-000000.tar": "test", **dict.fromkeys(SHARDS, "train")}
    shards = [
        {"name": n, "split": s, "samples": 9, "bytes": 9, "sha256": f"{i:064x}"}
        for i, (n, s) in enumerate(names.items())
    ]
    counts = {"by_split": {"train": 1, "test": 1}, "by_modality": {}, "by_reason": {}}
    folder.mkdir()
    write_index(
        folder,
        table,
        [],
        shards=shards,
        counts=counts,
        preprocessing={},
        options={},
        columns=[*SAMPLE_COLUMNS, LICENSE],
    )
    return [row for row in pq.read_table(folder / "samples.parquet").to_pylist() if row["split"] == "train"]


@pytest.mark.parametrize("num_rows", [5, 64, 96, 97, 1000])
def test_rows_come_back_as_they_were_wherever_batches_end(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_rows: int
) -> None:
    monkeypatch.setattr(mapped_rows, "BATCH_ROWS", 64)
    monkeypatch.setattr("medclip.shards.folder._BATCH_ROWS", 37)
    expected = _folder(tmp_path / "a", num_rows)
    reader = ShardReader(tmp_path / "a", "train")
    assert len(reader) == len(expected)
    assert list(reader.rows) == expected
    for i in (0, len(expected) // 2, len(expected) - 1, -1):
        assert reader.row(i) == expected[i]
        assert reader.key(i) == expected[i]["key"]
        assert reader._rows.place(i) == (SHARDS.index(expected[i]["shard"]), expected[i]["offset"], expected[i]["size"])
    columns = reader.columns
    assert [columns.sources[c] for c in columns.source_N] == [row["source"] or "" for row in expected]
    assert [columns.modalities[c] for c in columns.modality_N] == [row["modality"] or "" for row in expected]
    assert [SHARDS[c] for c in columns.shard_N] == [row["shard"] for row in expected]
    assert list(columns.sources) == sorted(columns.sources)
    assert columns.source_N.dtype == np.uint8


def test_the_file_is_written_once_for_its_owner_alone_and_again_when_the_table_changes(
    home: Path, tmp_path: Path
) -> None:
    _folder(tmp_path / "a", 50)
    ShardReader(tmp_path / "a", "train")
    (path,) = home.glob("*.arrow")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = path.stat().st_ino
    ShardReader(tmp_path / "a", "train")
    assert path.stat().st_ino == first
    table = pq.read_table(tmp_path / "a" / "samples.parquet")
    changed = table.set_column(0, "key", pa.array(["other" + k for k in table["key"].to_pylist()]))
    pq.write_table(changed, tmp_path / "a" / "samples.parquet")
    assert ShardReader(tmp_path / "a", "train").key(0).startswith("other")


def test_a_file_that_was_cut_short_is_written_anew(home: Path, tmp_path: Path) -> None:
    expected = _folder(tmp_path / "a", 50)
    ShardReader(tmp_path / "a", "train")
    (path,) = home.glob("*.arrow")
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])
    assert list(ShardReader(tmp_path / "a", "train").rows) == expected


def test_old_files_go(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped_rows, "_KEPT", 2)
    for number in range(4):
        _folder(tmp_path / str(number), 20 + number)
        ShardReader(tmp_path / str(number), "train")
    assert len(list(home.glob("*.arrow"))) == 2


def test_a_file_that_is_in_use_stays_however_many_come_after_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped_rows, "_KEPT", 2)
    expected = _folder(tmp_path / "used", 50)
    used = ShardReader(tmp_path / "used", "train")
    for number in range(4):
        _folder(tmp_path / str(number), 20 + number)
        ShardReader(tmp_path / str(number), "train")
    assert [row for part in used._rows.parts() for row in part] == expected
    assert len(list(home.glob("*.arrow"))) == 3
    del used
    _folder(tmp_path / "last", 30)
    ShardReader(tmp_path / "last", "train")
    assert len(list(home.glob("*.arrow"))) == 2


def test_without_a_place_to_write_rows_lie_in_a_file_that_goes_with_them(home: Path, tmp_path: Path) -> None:
    home.parent.mkdir(parents=True)
    home.write_text("a file stands where the folder would be")
    expected = _folder(tmp_path / "a", 50)
    reader = ShardReader(tmp_path / "a", "train")
    path = reader._rows.path
    assert list(pickle.loads(pickle.dumps(reader)).rows) == expected
    assert path.is_file()
    del reader
    assert not path.exists()


def test_ranks_that_open_a_split_at_once_write_one_file(home: Path, tmp_path: Path) -> None:
    expected = _folder(tmp_path / "a", 3000)
    code = f"""
from medclip.shards.reading.samples import ShardReader
reader = ShardReader({str(tmp_path / "a")!r}, "train")
print(reader.key(7), reader._rows.path.stat().st_ino)
"""
    ranks = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ.copy())
        for _ in range(3)
    ]
    answers = {rank.communicate()[0] for rank in ranks}
    assert len(answers) == 1
    assert answers.pop().startswith(expected[7]["key"])


def test_a_reader_travels_as_the_name_of_its_file(home: Path, tmp_path: Path) -> None:
    expected = _folder(tmp_path / "a", 5000)
    reader = ShardReader(tmp_path / "a", "train")
    content = pickle.dumps(reader)
    assert len(content) < 5000
    assert list(pickle.loads(content).rows) == expected
