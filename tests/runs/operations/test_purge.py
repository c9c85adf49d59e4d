"""What a run has beside its tables is removed, and nothing else."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

import medclip
from medclip.api.embed import embed
from medclip.api.score import score
from medclip.cli.main import main
from medclip.embeddings.open_embeddings import open_embeddings
from medclip.errors import MedclipError, Reason
from medclip.files.discover import walk
from medclip.files.locks import held_folder
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.operations.purge import _refuse_broad, parse_age
from medclip.runs.operations.run_status import read_status
from medclip.runs.outputs.results import PARTS
from tests.kits.scoring import digests, write_dicom


@pytest.fixture
def films(tmp_path: Path) -> Path:
    for n in range(3):
        write_dicom(tmp_path / "in" / f"{n}.dcm", n)
    return tmp_path / "in"


def scored(films: Path, out: Path, pack: Path) -> Any:
    return score(films, out, model=pack, workers=1)


def num_rows(out: Path, table: str) -> int:
    with sqlite3.connect(out / "ledger.sqlite") as db:
        return db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]


def test_nothing_is_removed_until_that_is_confirmed(pack: Path, films: Path, tmp_path: Path):
    scored(films, tmp_path / "out", pack)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*")}
    purged = medclip.runs.purge(tmp_path)
    assert [run.folder for run in purged.runs] == [tmp_path / "out"]
    assert set(purged.runs[0].size_bytes) == {"thumbnails", "ledger"}
    assert purged.size_bytes > 0
    assert not purged.is_done
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*")} == before
    with pytest.raises(MedclipError, match="nothing is named"):
        medclip.runs.purge(tmp_path, yes=True)


def test_without_small_images_the_tables_stay_and_the_report_comes_back_without_them(
    pack: Path, films: Path, tmp_path: Path
):
    out = tmp_path / "out"
    first = scored(films, out, pack)
    assert "data:image/jpeg" in first.report_path.read_text()
    tables = {name: sha for name, sha in digests(out).items() if name.endswith("parquet")}
    medclip.runs.purge(out, remove="thumbnails", yes=True)
    assert num_rows(out, "thumbnails") == 0
    assert not (out / "report.html").exists()
    assert b"\xff\xd8\xff" not in (out / "ledger.sqlite").read_bytes(), "no JPEG is left in the file's free pages"
    assert medclip.runs.purge(out, remove="thumbnails").runs == ()
    again = scored(films, out, pack)
    assert again.already_finished
    assert {name: sha for name, sha in digests(out).items() if name.endswith("parquet")} == tables
    assert "data:image/jpeg" not in again.report_path.read_text()


def test_a_purged_ledger_keeps_no_name_and_its_folder_is_still_known(
    pack: Path, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = films / "out"
    scored(films, out, pack)
    (out / PARTS).mkdir()
    (out / PARTS / "left.parquet").write_bytes(b"rows that a kill left behind")
    medclip.runs.purge(out, remove="ledger", yes=True)
    assert not (out / PARTS).exists()
    assert [num_rows(out, table) for table in ("inputs", "files", "scores", "thumbnails")] == [0, 0, 0, 0]
    assert b"1.dcm" not in (out / "ledger.sqlite").read_bytes()
    assert medclip.runs.read(out).counts["scored"] == 3
    assert not any("out" in ref.name for ref in walk(films))
    with pytest.raises(MedclipError, match="medclip runs purge removed") as refused:
        scored(films, out, pack)
    assert refused.value.reason is Reason.OUTPUT_IN_USE
    assert (read_status(out).exit_code, read_status(out).purged) == (0, ("ledger",))
    capsys.readouterr()
    assert main(["status", str(out)]) == 0
    assert "0 of 0" not in (words := capsys.readouterr().out)
    assert "files.parquet has their rows" in words


def test_a_folder_that_holds_a_home_or_the_whole_disk_is_not_searched_for_runs(
    pack: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scored(films, tmp_path / "homes" / "night" / "out", pack)
    monkeypatch.setenv("HOME", str(tmp_path / "homes" / "night"))
    for place in (tmp_path / "homes" / "night", tmp_path / "homes"):
        with pytest.raises(MedclipError, match="root of a file system"):
            medclip.runs.purge(place, remove="ledger", yes=True)
    assert num_rows(tmp_path / "homes" / "night" / "out", "files") == 3
    with pytest.raises(MedclipError, match="root of a file system"):
        _refuse_broad(Path("/"))  # never by purge itself: what it would remove, were this gone, is others'
    assert medclip.runs.purge(tmp_path / "homes" / "night" / "out", remove="ledger").runs


def test_vectors_go_and_their_folder_says_that_it_is_not_complete(pack: Path, films: Path, tmp_path: Path):
    out = tmp_path / "vectors"
    embed(films, out, model=pack, workers=1)
    medclip.runs.purge(out, remove="thumbnails", yes=True)
    kept = open_embeddings(out)
    assert (kept.num_views, len(kept.vectors("views"))) == (3, 3)
    medclip.runs.purge(out, remove="embeddings", yes=True)
    assert not list(out.glob("*views*"))
    assert num_rows(out, "units") == 0
    assert (out / "files.parquet").exists()
    with pytest.raises(MedclipError):
        open_embeddings(out)
    with pytest.raises(MedclipError, match="medclip runs purge removed"):
        embed(films, out, model=pack, workers=1)


def test_young_runs_those_that_go_on_and_unfinished_ones_are_kept(
    pack: Path, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for name in ("old", "young", "running"):
        scored(films, tmp_path / name, pack)
    for name in ("old", "running"):
        month_ago = time.time() - 31 * 86400
        os.utime(tmp_path / name / "run.json", (month_ago, month_ago))
    (tmp_path / "stopped").mkdir()
    Ledger(tmp_path / "stopped").close()
    with held_folder(tmp_path / "running"):
        code = main(["runs", "purge", str(tmp_path), "--older-than", "30d", "--remove", "ledger", "--yes", "--json"])
    runs = {Path(run["folder"]).name: run for run in json.loads(capsys.readouterr().out)["runs"]}
    assert set(runs) == {"old", "running"}
    assert runs["old"]["kept"] == ""
    assert "another medclip" in runs["running"]["kept"]
    assert code == 3
    assert [num_rows(tmp_path / name, "files") for name in ("old", "young", "running")] == [0, 3, 3]
    assert main(["runs", "purge", str(tmp_path / "stopped"), "--remove", "ledger", "--yes"]) == 3
    assert "was not finished" in capsys.readouterr().out


def test_a_shard_whose_rows_are_nowhere_else_is_kept_and_can_be_merged(pack: Path, films: Path, tmp_path: Path):
    scored(films, tmp_path / "whole", pack)
    score(films, tmp_path / "shard", model=pack, workers=1, shard="1/1")
    for ledger in (True, False):
        purged = medclip.runs.purge(tmp_path / "shard", remove="ledger" if ledger else "thumbnails", yes=True)
        assert purged.exit_code == 3
        assert "it is a shard" in purged.runs[0].kept
    medclip.runs.merge([tmp_path / "shard"], tmp_path / "all", workers=1)
    assert digests(tmp_path / "all") == digests(tmp_path / "whole")


def test_an_age_is_a_number_with_its_unit():
    assert [parse_age(text) for text in ("12h", "30 d", "4w")] == [43200, 2592000, 2419200]
    for text in ("30", "d", "-3d", "1m"):
        with pytest.raises(MedclipError):
            parse_age(text)
