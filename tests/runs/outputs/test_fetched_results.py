"""Results of a store as files of this machine: the same as a folder's, whole or refused, and gone afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import medclip
from medclip.api.score import score
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.files.stores import RemotePath, write_object
from medclip.runs.outputs import fetched_results as module
from medclip.runs.outputs.fetched_results import fetched_results
from tests.kits.scoring import digests, pack, small_folder, studies
from tests.kits.stores import memory_store, put
from tests.kits.watched import write_run

__all__ = ["memory_store", "pack", "studies"]
ASKED: dict[str, Any] = {"min_confidence": 0.0, "workers": 1}
NIGHT = "memory://results/patient-77/night"


@pytest.fixture
def night(memory_store: Any, tmp_path: Path) -> Path:
    """A run of which the store has a copy, with a page beside its tables."""
    folder = write_run(tmp_path / "night", patients=range(5))
    (folder / "report.html").write_text("<html>")
    put(folder, NIGHT)
    return folder


@pytest.mark.parametrize("form", [str, Path], ids=["a text", "a path that shortened its slashes"])
def test_a_run_has_the_bytes_of_its_tables_under_its_own_name_until_the_end(night: Path, form: Any) -> None:
    with fetched_results() as fetched:
        copy = fetched.results(form(NIGHT))
        assert copy is fetched.results(NIGHT)
        assert copy.name == "night"
        assert {path.name for path in copy.iterdir()} == {"files.parquet", "scores.parquet", "run.json"}
        for path in copy.iterdir():
            assert path.read_bytes() == (night / path.name).read_bytes()
        assert fetched.url_of(copy / "scores.parquet") == f"{NIGHT}/scores.parquet"
        assert fetched.url_of(night) is None
    assert not copy.exists()


@pytest.mark.usefixtures("night")
def test_a_table_of_a_run_brings_the_files_beside_it_and_another_table_nothing() -> None:
    with fetched_results() as fetched:
        copy = fetched.results(f"{NIGHT}/scores.parquet")
        assert sorted(path.name for path in copy.parent.iterdir()) == ["files.parquet", "scores.parquet"]
        assert copy.parent.name == "night"
        alone = fetched.results(f"{NIGHT}/report.html")
        assert [path.name for path in alone.parent.iterdir()] == ["report.html"]


def test_what_is_no_store_stays_what_it_is(tmp_path: Path) -> None:
    table = object()
    with fetched_results() as fetched:
        assert fetched.results(table) is table
        assert fetched.results(tmp_path) is tmp_path
        assert fetched.shard("night/1") == "night/1"


@pytest.mark.parametrize(
    ("name", "message"),
    [("gone", "there is no such file or folder"), ("half", "no finished run here: run.json is missing")],
)
def test_what_is_not_there_or_half_there_is_refused(memory_store: Any, name: str, message: str) -> None:
    write_object(RemotePath("memory://results/half/scores.parquet"), b"PAR1")
    with pytest.raises(MedclipError, match=message) as caught, fetched_results() as fetched:
        fetched.results(f"memory://results/{name}")
    assert (caught.value.reason, caught.value.where) == (Reason.MISSING_FILE, f"memory://results/{name}")


@pytest.mark.usefixtures("night")
def test_a_run_that_is_published_anew_while_it_is_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = module._fetch

    def changing(place: Any, path: Path) -> None:
        honest(place, path)
        write_object(RemotePath(f"{NIGHT}/run.json"), b"{}")

    monkeypatch.setattr(module, "_fetch", changing)
    with pytest.raises(MedclipError, match="published anew") as caught, fetched_results() as fetched:
        fetched.results(NIGHT)
    assert caught.value.reason is Reason.CHANGED


@pytest.mark.usefixtures("night")
def test_an_error_about_a_copy_names_the_url() -> None:
    write_object(RemotePath(f"{NIGHT}/scores.parquet"), b"PAR1 and no more")
    with pytest.raises(MedclipError) as caught:
        medclip.monitor([NIGHT], before=[])
    assert caught.value.where == NIGHT
    assert "medclip-results" not in str(caught.value)


def test_shards_of_a_store_are_merged_as_those_of_a_disk(
    memory_store: Any, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = small_folder(tmp_path / "in")
    for number in (1, 2):
        score(root, tmp_path / f"{number}", model=pack, shard=f"{number}/2", **ASKED)
        put(tmp_path / f"{number}", f"memory://cluster/{number}")
    medclip.runs.merge([tmp_path / "1", tmp_path / "2"], tmp_path / "all", workers=1)
    urls = ["memory://cluster/2", "memory://cluster/1"]
    assert main(["runs", "merge", *urls, "--out", str(tmp_path / "fetched"), "--workers", "1"]) == 3, (
        "one file is broken"
    )
    assert digests(tmp_path / "fetched") == digests(tmp_path / "all")
    assert "2 shards merged" in capsys.readouterr().out


def test_a_folder_without_a_shard_and_one_that_was_copied_too_early_are_refused(memory_store: Any) -> None:
    write_object(RemotePath("memory://cluster/1/files.parquet"), b"PAR1")
    with pytest.raises(MedclipError, match="no shard of a run here") as caught:
        medclip.runs.merge(["memory://cluster/1"], "all")
    assert caught.value.where == "memory://cluster/1"
    write_object(RemotePath("memory://cluster/1/ledger.sqlite"), b"")
    write_object(RemotePath("memory://cluster/1/ledger.sqlite-wal"), b"pages")
    with pytest.raises(MedclipError, match="copied while its run went on") as caught:
        medclip.runs.merge(["memory://cluster/1"], "all")
    assert caught.value.reason is Reason.BUSY
