"""Shards of a run: every file is in one of them, and merged they are the run that one machine makes, to the byte."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import medclip
from medclip.api.embed import embed
from medclip.api.runs import retry
from medclip.api.score import score
from medclip.errors import MedclipError, Reason
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.operations.run_status import STOPPED, read_status
from medclip.runs.planning import listing, look, plan
from medclip.runs.planning.identity import RunShard, parse_shard
from medclip.runs.planning.listing import windows
from medclip.sample import FileRef
from tests.kits.scoring import STUDY_UID, digests, every_way, make_pack, write_dicom, write_png
from tests.kits.size import sized
from tests.kits.volumes import positions_of, write_series

ASKED: dict[str, Any] = {"min_confidence": 0.0, "workers": 1, "prompt": "a fracture"}


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of a few files, so that small folders have many."""
    monkeypatch.setattr(listing, "WINDOW_FILES", 3)
    monkeypatch.setattr(look, "WINDOW_FILES", 3)
    monkeypatch.setattr(listing, "CUT_FILES", 4)
    monkeypatch.setattr(plan, "CHUNK_FILES", 2)


@pytest.fixture(scope="module")
def seeing_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pack that reads volumes, too."""
    return make_pack(tmp_path_factory.mktemp("packs") / "seeing", every_way())


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Studies scattered over folders, a series in a folder for each slice, a folder that is cut, files that fail."""
    root = tmp_path_factory.mktemp("hospital")
    for n in range(10):
        write_dicom(root / f"{n}" / "x.dcm", n, study_uid=f"{STUDY_UID}.{n % 3}")
    voxels = np.random.default_rng(3).integers(-500, 500, (7, 40, 30)).astype(np.int16)
    for name, folder in (("8", "ct"), ("9", "slices")):
        uids: dict[str, Any] = {"StudyInstanceUID": f"{STUDY_UID}.{name}", "SeriesInstanceUID": f"{STUDY_UID}.{name}.1"}
        for path in write_series(root / folder, voxels, positions_of(7), **uids):
            if folder == "slices":
                (root / folder / path.stem).mkdir()
                path.rename(root / folder / path.stem / path.name)
    for n in range(11):
        write_png(root / "flat" / f"{n}.png", 50 + n)
    (root / "flat" / "broken.png").write_bytes(write_png(root / "whole.png", 20).read_bytes()[:200])
    (root / "empty.dcm").touch()
    return root


def _merged(root: Path, pack: Path, num_shards: int, folder: Path, **asked: Any) -> Path:
    for number in range(1, num_shards + 1):
        run = score(root, folder / f"{number}", model=pack, shard=f"{number}/{num_shards}", **{**ASKED, **asked})
        assert run.shard == f"{number}/{num_shards}"
    medclip.runs.merge([folder / f"{n}" for n in range(num_shards, 0, -1)], folder / "all", workers=1)
    return folder / "all"


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("num_shards", [1, 3])
def test_merged_shards_are_the_run_of_one_machine_to_the_byte(
    hospital: Path, seeing_pack: Path, tmp_path: Path, num_shards: int
) -> None:
    score(hospital, tmp_path / "whole", model=seeing_pack, **ASKED)
    merged = _merged(hospital, seeing_pack, num_shards, tmp_path)
    assert digests(merged) == digests(tmp_path / "whole")


@pytest.mark.usefixtures("small_windows")
def test_merged_shards_with_a_table_and_hashed_paths_are_that_run_too(
    hospital: Path, seeing_pack: Path, tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    rows = ["file,study,modality", "flat/1.png,A,xray", "whole.png,A,xray", "flat/gone.png,A,xray", "0/x.dcm,B,xray"]
    table.write_text("\n".join(rows) + "\n")
    asked: dict[str, Any] = {"table": table, "hash_paths": True}
    score(hospital, tmp_path / "whole", model=seeing_pack, **{**ASKED, **asked})
    merged = _merged(hospital, seeing_pack, 2, tmp_path, **asked)
    assert digests(merged) == digests(tmp_path / "whole")


@pytest.mark.usefixtures("small_windows")
def test_merged_shards_of_embeddings_are_those_of_one_machine(
    hospital: Path, seeing_pack: Path, tmp_path: Path
) -> None:
    embed(hospital, tmp_path / "whole", model=seeing_pack, min_confidence=0.0, workers=1)
    for number in (1, 2):
        part = embed(
            hospital, tmp_path / f"{number}", model=seeing_pack, min_confidence=0.0, workers=1, shard=f"{number}/2"
        )
        assert part.shard == f"{number}/2"
        assert part.counts["files"] > 0
    medclip.runs.merge([tmp_path / "1", tmp_path / "2"], tmp_path / "all", workers=1)
    names = sorted(path.name for path in (tmp_path / "whole").iterdir() if not path.name.startswith("ledger"))
    assert names
    for name in names:
        assert (tmp_path / "all" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.usefixtures("small_windows")
@hypothesis_settings(max_examples=sized(12, least=3))
@given(
    layout=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.booleans()), min_size=1, max_size=14),
    num_shards=st.integers(2, 4),
)
def test_whatever_lies_where_merged_shards_are_the_run_of_one_machine(
    pack: Path, layout: list[tuple[int, int, bool]], num_shards: int
) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for n, (where, study, is_whole) in enumerate(layout):
            path = write_dicom(folder / "in" / f"{where}" / f"{n}.dcm", n, study_uid=f"{STUDY_UID}.{study}")
            if not is_whole:
                path.write_bytes(path.read_bytes()[:-500])
        score(folder / "in", folder / "whole", model=pack, **ASKED)
        merged = _merged(folder / "in", pack, num_shards, folder)
        assert digests(merged) == digests(folder / "whole")


@given(st.lists(st.integers(1, 12), max_size=10), st.integers(1, 5))
def test_each_window_of_the_whole_run_is_in_one_shard(sizes: list[int], num_shards: int) -> None:
    refs = [FileRef(Path(f"{f}/{n}"), f"{f}/{n}", 1) for f, size in enumerate(sizes) for n in range(size)]
    before = listing.WINDOW_FILES, listing.CUT_FILES
    listing.WINDOW_FILES, listing.CUT_FILES = 3, 5
    try:
        all_windows = list(windows(refs))
        parts = [list(RunShard(number, num_shards).select(windows(refs))) for number in range(1, num_shards + 1)]
    finally:
        listing.WINDOW_FILES, listing.CUT_FILES = before
    assert sorted(repr(window) for part in parts for window in part) == sorted(map(repr, all_windows))


@pytest.mark.usefixtures("small_windows")
def test_a_shard_that_was_stopped_goes_on_with_its_own_windows(hospital: Path, pack: Path, tmp_path: Path) -> None:
    score(hospital, tmp_path / "whole", model=pack, **ASKED)
    with Ledger(tmp_path / "whole", create=False) as ledger:
        num_files = ledger.num_listed()
    first = score(hospital, tmp_path / "1", model=pack, shard="1/2", limit=4, **ASKED)
    assert 4 <= first.counts["files"] < num_files // 2
    with pytest.raises(MedclipError, match="shard 1/2 is not finished"):
        medclip.runs.merge([tmp_path / "1", tmp_path / "1"], tmp_path / "all")
    _merged(hospital, pack, 2, tmp_path)
    assert digests(tmp_path / "all") == digests(tmp_path / "whole")
    for order in (("2", "1"), ("1", "2")):
        again = medclip.runs.merge([tmp_path / name for name in order], tmp_path / "all", workers=1)
        assert getattr(again, "already_finished", False)


@pytest.mark.usefixtures("small_windows")
def test_shards_that_do_not_belong_together_are_refused_by_name(hospital: Path, pack: Path, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        score(hospital, tmp_path / f"{number}", model=pack, shard=f"{number}/3", **ASKED)
    score(hospital, tmp_path / "other", model=pack, shard="3/3", **{**ASKED, "prompt": "a pacemaker"})
    score(hospital, tmp_path / "four", model=pack, shard="4/4", **ASKED)
    merge, one, two, three = medclip.runs.merge, tmp_path / "1", tmp_path / "2", tmp_path / "3"
    with pytest.raises(MedclipError, match="1 shard of 3 is not named: 3"):
        merge([one, two], tmp_path / "all")
    with pytest.raises(MedclipError, match=r"other: .*the prompts"):
        merge([one, two, tmp_path / "other"], tmp_path / "all")
    with pytest.raises(MedclipError, match=r"four: .*a shard of 4, and others are of 3"):
        merge([one, two, tmp_path / "four"], tmp_path / "all")
    with pytest.raises(MedclipError, match="shard 1 of 3 is named twice"):
        merge([one, two, three, one], tmp_path / "all")
    with pytest.raises(MedclipError, match="there is no ledger"):
        merge([one, two, tmp_path / "empty"], tmp_path / "all")
    assert not (tmp_path / "all").exists()


@pytest.mark.usefixtures("small_windows")
def test_shards_are_never_merged_into_the_folder_of_another_run(hospital: Path, pack: Path, tmp_path: Path) -> None:
    for prompt, name in (("a fracture", "one"), ("a pacemaker", "two")):
        for number in (1, 2):
            asked = {**ASKED, "prompt": prompt}
            score(hospital, tmp_path / name / f"{number}", model=pack, shard=f"{number}/2", **asked)
    folders = {name: [tmp_path / name / "1", tmp_path / name / "2"] for name in ("one", "two")}
    medclip.runs.merge(folders["one"], tmp_path / "all", workers=1)
    score(hospital, tmp_path / "whole", model=pack, **ASKED)
    before = {name: digests(tmp_path / name) for name in ("all", "whole")}
    for name, shards in (("all", "two"), ("whole", "one")):  # of another question, and of none that was in shards
        with pytest.raises(MedclipError, match="holds another run") as refused:
            medclip.runs.merge(folders[shards], tmp_path / name, workers=1)
        assert refused.value.reason is Reason.OUTPUT_IN_USE
    assert {name: digests(tmp_path / name) for name in ("all", "whole")} == before


@pytest.mark.usefixtures("small_windows")
def test_a_shard_that_was_cut_is_not_finished_whatever_it_was_before(
    hospital: Path, pack: Path, tmp_path: Path
) -> None:
    def run(**how: Any) -> Any:
        return score(hospital, tmp_path / "1", model=pack, shard="1/2", **ASKED, **how)

    def is_finished() -> bool:
        with Ledger(tmp_path / "1", create=False) as ledger:
            return ledger.get("finished") is not None

    assert not run(limit=2).already_finished
    assert not is_finished()
    assert read_status(tmp_path / "1").state == STOPPED
    assert run().counts["failed"]
    assert is_finished()
    assert run().already_finished
    assert not retry(tmp_path / "1", limit=1).already_finished
    assert not is_finished(), "files that were opened again are left out"
    run()
    assert is_finished()


@pytest.mark.usefixtures("small_windows")
def test_a_file_that_came_between_the_shards_is_refused_and_never_counted_twice(pack: Path, tmp_path: Path) -> None:
    root = tmp_path / "in"
    for n in range(12):
        write_png(root / f"{n:02}" / "x.png", n)
    score(root, tmp_path / "1", model=pack, shard="1/2", **ASKED)
    for n in range(4):
        write_png(root / f"00{n}" / "y.png", 90 + n)
    score(root, tmp_path / "2", model=pack, shard="2/2", **ASKED)
    with pytest.raises(MedclipError) as error:
        medclip.runs.merge([tmp_path / "1", tmp_path / "2"], tmp_path / "all", workers=1)
    assert error.value.reason is Reason.OUTPUT_IN_USE


def test_a_folder_of_a_shard_is_no_folder_of_another_or_of_a_whole_run(
    studies: Path, pack: Path, tmp_path: Path
) -> None:
    run = score(studies, tmp_path / "1", model=pack, shard="1/2", **ASKED)
    with pytest.raises(MedclipError, match=r"holds shard 1/2 of a run"):
        score(studies, tmp_path / "1", model=pack, shard="2/2", **ASKED)
    with pytest.raises(MedclipError, match=r"holds shard 1/2 of a run"):
        score(studies, tmp_path / "1", model=pack, **ASKED)
    with pytest.raises(MedclipError, match="a shard has no tables"):
        _ = run.files
    assert "1/2" in repr(run)
    assert not list((tmp_path / "1").glob("*.parquet"))


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "a/b", "1/0", "-1/2", "1/2/3"])
def test_what_names_no_shard_is_refused(text: str) -> None:
    with pytest.raises(MedclipError, match="a shard is named i/n"):
        parse_shard(text)


def test_what_cannot_be_cut_into_shards_is_refused(studies: Path, pack: Path, tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="a shard has a folder of its own"):
        score(studies, model=pack, shard="1/2")
    with pytest.raises(MedclipError, match="files that came later"):
        score(studies, tmp_path / "1", model=pack, shard="1/2", add=True)
    with pytest.raises(MedclipError, match="this call holds values or queries"):
        score([studies / "whole.png"], tmp_path / "1", model=pack, shard="1/2")
    with pytest.raises(MedclipError, match="heat maps or results"):
        score(studies, tmp_path / "1", model=pack, shard="1/2", report={"explain": "top"})
    shutil.rmtree(tmp_path / "1", ignore_errors=True)
