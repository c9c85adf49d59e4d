"""A disk that is full, or takes no writing any more: one clear sentence, nothing lost, and the same call goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medclip.api.score import score
from medclip.errors import MedclipError, Reason
from medclip.exit_codes import ExitCode, exit_code
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.operations.run_status import read_status
from medclip.runs.outputs import results
from medclip.runs.planning import plan
from medclip.runs.rows import ChunkResult
from tests.kits.scoring import digests, write_png

NUM_FILES = 40


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images; runs over it write parts all the time."""
    monkeypatch.setattr(plan, "CHUNK_FILES", 4)
    monkeypatch.setattr(results, "PART_SECONDS", 0.0)
    for n in range(NUM_FILES):
        write_png(tmp_path / "in" / f"{n:02}.png", n)
    return tmp_path / "in"


def _score(root: Path, out: Path, pack: Path) -> None:
    score(root, out, model=pack, modality="xray", workers=1)


@contextmanager
def _small_disk(place: Path, size_bytes: int) -> Iterator[Callable[[int], None]]:
    """Mount a disk of some size; yield what makes it larger."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs to be root, and more than a container may: run as root on a machine")

    def enlarge(larger: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={larger}", str(place)], check=True)

    try:
        yield enlarge
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _refusal(action: Callable[[], Any]) -> MedclipError | None:
    try:
        action()
    except MedclipError as error:
        return error
    return None


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_stage_ends_in_one_sentence_and_with_room_in_the_same_bytes(
    folder: Path, pack: Path, tmp_path: Path
) -> None:
    _score(folder, tmp_path / "whole", pack)
    needed = sum(path.stat().st_size for path in (tmp_path / "whole").rglob("*") if path.is_file())
    num_done: list[int] = []
    for number, share in enumerate((0.05, 0.5, 0.95, 1.3, 1.6)):  # beside its files a run needs room for logs and parts
        with _small_disk(tmp_path / f"disk{number}", int(share * needed)) as enlarge:
            out = tmp_path / f"disk{number}" / "out"
            refusal = _refusal(partial(_score, folder, out, pack))
            if refusal is not None:
                assert "the disk is full" in str(refusal)
                assert exit_code(refusal.reason) is ExitCode.INCOMPLETE
                assert not (out / "run.json").exists()
                enlarge(64 * 1024**2)  # SQLite needs some room even to read
                is_begun = _refusal(partial(read_status, out)) is None  # else full before the ledger had its tables
                num_done.append(read_status(out).counts["scored"] if is_begun else 0)
                _score(folder, out, pack)
            assert digests(out) == digests(tmp_path / "whole")
    assert num_done == sorted(num_done)
    assert len(num_done) >= 3
    assert num_done[-1] > 0


def test_a_disk_that_is_remounted_read_only_under_a_run_says_so_and_the_run_goes_on_when_it_is_mended(
    folder: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system does this to a damaged disk under open files, and nobody else can: SQLite and statvfs are told so."""
    _score(folder, tmp_path / "whole", pack)
    out, commit, statvfs = tmp_path / "out", Ledger.commit, os.statvfs
    num_commits = 0

    def remounting(self: Ledger, result: ChunkResult) -> Any:
        nonlocal num_commits
        num_commits += 1
        if num_commits == 4:
            self._db.execute("PRAGMA query_only=1")
            monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY))
        return commit(self, result)

    monkeypatch.setattr(Ledger, "commit", remounting)
    with pytest.raises(MedclipError, match="this file system is read-only") as caught:
        _score(folder, out, pack)
    assert (caught.value.reason, exit_code(caught.value.reason)) == (Reason.WRITE_ERROR, ExitCode.INCOMPLETE)
    monkeypatch.setattr(Ledger, "commit", commit)
    monkeypatch.setattr(os, "statvfs", statvfs)
    assert read_status(out).counts["scored"] == 12
    _score(folder, out, pack)
    assert digests(out) == digests(tmp_path / "whole")
