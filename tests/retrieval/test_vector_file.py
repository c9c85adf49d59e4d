from __future__ import annotations

import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from medclip.errors import MedclipError, Reason
from medclip.retrieval import top_rows as module
from medclip.retrieval.top_rows import VectorFile, open_vector_file, write_vector_file


def file_of(vectors: np.ndarray, folder: Path) -> VectorFile:
    path = folder / "vectors.npy"
    write_vector_file(path, vectors.shape, [vectors])
    opened = open_vector_file(path, vectors.shape)
    assert opened is not None
    return opened


def test_what_is_written_in_blocks_is_read_in_blocks_and_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 1000)
    vectors = np.random.default_rng(0).standard_normal((700, 5)).astype(np.float16)
    write_vector_file(tmp_path / "v.npy", (700, 5), [vectors[:300], vectors[300:]])
    opened = open_vector_file(tmp_path / "v.npy", (700, 5))
    assert opened is not None
    blocks = [(start, block.copy()) for start, block in opened.blocks()]
    assert [start for start, _ in blocks] == list(range(0, 700, 50))
    assert np.array_equal(np.concatenate([block for _, block in blocks]), vectors.astype(np.float32))
    assert np.array_equal(opened.rows(np.array([699, 0, 0])), vectors[[699, 0, 0]].astype(np.float32))
    assert np.array_equal(np.load(tmp_path / "v.npy"), vectors.astype(np.float32))
    assert stat.S_IMODE((tmp_path / "v.npy").stat().st_mode) == 0o600


def test_blocks_in_which_nothing_is_wanted_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 80)
    opened = file_of(np.zeros((100, 2), np.float32), tmp_path)
    wanted = np.zeros(100, bool)
    wanted[[5, 55]] = True
    assert [start for start, _ in opened.blocks(wanted)] == [0, 50]


@pytest.mark.parametrize("harm", ["missing", "shape", "short", "other dtype", "no npy"])
def test_a_file_that_does_not_fit_is_not_opened(tmp_path: Path, harm: str) -> None:
    path, shape = tmp_path / "v.npy", (4, 3)
    if harm != "missing":
        write_vector_file(path, shape, [np.ones(shape)])
        assert open_vector_file(path, shape) is not None
    if harm == "short":
        path.write_bytes(path.read_bytes()[:-4])
    if harm == "other dtype":
        np.save(path, np.ones(shape, np.float64))
    if harm == "no npy":
        path.write_bytes(b"vectors")
    assert open_vector_file(path, (4, 2) if harm == "shape" else shape) is None


def test_vectors_that_are_no_numbers_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(MedclipError) as e:
        write_vector_file(tmp_path / "v.npy", (2, 2), [np.array([[0.0, 1.0], [np.nan, 1.0]])])
    assert e.value.reason is Reason.NON_FINITE
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep pages as they like")
def test_a_pass_leaves_no_page_of_the_file_with_the_process(tmp_path: Path) -> None:
    opened = file_of(np.ones((30_000, 256), np.float32), tmp_path)
    before = mapped_kilobytes()
    for _, block in opened.blocks():
        assert block[0, 0] == 1
    opened.rows(np.arange(0, 30_000, 10))
    assert mapped_kilobytes() - before < 8_000  # of 30,720
    assert opened.vectors.sum() > 0
    assert mapped_kilobytes() - before > 25_000


def mapped_kilobytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssFile"))
