"""A run that stops after some files, and another call that goes on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medclip.api.embed import embed
from medclip.api.score import score
from medclip.errors import MedclipError, Reason
from medclip.files.pseudonyms import hashed_path, load_key
from medclip.runs.conduct import LimitedChunks
from medclip.runs.operations.run_status import STOPPED, read_status
from medclip.runs.planning import listing, look, plan
from medclip.runs.units import chunk
from medclip.settings import Settings
from tests.kits.kills import left_behind
from tests.kits.scoring import STUDY_UID, digests, write_dicom


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight films in folders, two of them of a study that lies in both; small windows and chunks."""
    monkeypatch.setattr(listing, "WINDOW_FILES", 2)
    monkeypatch.setattr(look, "WINDOW_FILES", 2)
    monkeypatch.setattr(plan, "CHUNK_FILES", 2)
    monkeypatch.setattr(chunk, "READ_AHEAD", 2)
    for n in range(8):
        study = 0 if n in (1, 6) else n
        write_dicom(tmp_path / "in" / f"{n // 2}" / f"{n}.dcm", n, study_uid=f"{STUDY_UID}.{study}")
    return tmp_path / "in"


def run(folder: Path, out: Path, pack: Path, **options: Any) -> Any:
    return score(folder, out, model=pack, workers=1, min_confidence=0.0, **options)


@pytest.mark.parametrize("hash_paths", [False, True])
def test_a_limited_run_goes_on_to_the_bytes_of_one_that_never_was(
    pack: Path, folder: Path, tmp_path: Path, hash_paths: bool
):
    unlimited = run(folder, tmp_path / "whole", pack, hash_paths=hash_paths)
    first = run(folder, tmp_path / "out", pack, limit=3, hash_paths=hash_paths)
    assert 3 <= first.counts["files"] < 8
    assert len(first.files) == first.counts["files"]
    assert any(note.startswith("Limited: ") for note in first.notes)
    assert "Limited: " in first.report_path.read_text()
    if hash_paths:
        names = {hashed_path(p.relative_to(folder).as_posix(), load_key(Settings())) for p in folder.rglob("*.dcm")}
        assert set(first.files["path"].to_pylist()) < names
    again = run(folder, tmp_path / "out", pack, limit=3, hash_paths=hash_paths)
    assert again.counts == first.counts, "the same call again adds nothing"
    assert read_status(tmp_path / "out").state == STOPPED
    more = run(folder, tmp_path / "out", pack, limit=5, hash_paths=hash_paths)
    assert first.counts["files"] < more.counts["files"] < 8
    last = run(folder, tmp_path / "out", pack, hash_paths=hash_paths)
    assert (last.counts, last.notes) == (unlimited.counts, unlimited.notes)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
    assert run(folder, tmp_path / "out", pack, hash_paths=hash_paths).already_finished


def test_a_limit_that_a_chunk_reaches_to_the_file_asks_for_no_other():
    pairs: Any = [SimpleNamespace(members=("a", "b"))] * 3
    chunks = LimitedChunks(iter(pairs), 4, 0)
    assert len(list(chunks)) == 2
    assert chunks.is_cut
    whole = LimitedChunks(iter(pairs), 6, 0)
    assert (len(list(whole)), whole.is_cut) == (3, False)


def test_a_limit_that_is_not_reached_leaves_a_finished_run(pack: Path, folder: Path, tmp_path: Path):
    limited, whole = run(folder, tmp_path / "out", pack, limit=8), run(folder, tmp_path / "whole", pack)
    assert limited.notes == whole.notes
    assert run(folder, tmp_path / "out", pack).already_finished
    assert json.loads((tmp_path / "out" / "run.json").read_text())["counts"]["files"] == 8


def test_embeddings_can_be_limited_and_go_on_to_the_same_bytes(pack: Path, folder: Path, tmp_path: Path):
    embed(folder, tmp_path / "whole", model=pack, workers=1)
    assert embed(folder, tmp_path / "out", model=pack, workers=1, limit=2).counts["files"] < 8
    embed(folder, tmp_path / "out", model=pack, workers=1)
    assert left_behind(tmp_path / "out") == left_behind(tmp_path / "whole")
    with pytest.raises(MedclipError, match="as a whole"):
        score(tmp_path / "out", tmp_path / "answers", model=pack, limit=2)


def test_a_limit_of_nothing_is_refused_and_nothing_is_kept(pack: Path, folder: Path, tmp_path: Path):
    with pytest.raises(MedclipError) as refused:
        run(folder, tmp_path / "out", pack, limit=0)
    assert refused.value.reason is Reason.WRONG_USE
    assert not (tmp_path / "out").exists()
