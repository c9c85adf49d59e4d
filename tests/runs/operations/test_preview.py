"""What a run would do is what it then does, as far as it can be known without pixels; and nothing is written."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

from medclip.api.embed import embed
from medclip.api.score import score
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.settings import Settings
from tests.kits.fake_pacs import IMAGE, FakePacs, part
from tests.kits.scoring import small_folder, write_dicom


def listed(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def test_a_dry_run_counts_what_the_run_then_does_and_writes_nothing(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    os.mkdir(tmp_path / "tmp")
    root = small_folder(tmp_path / "in")
    settings = Settings(home=tmp_path / "home", workers=1)
    before = listed(tmp_path)
    options = {"model": pack, "settings": settings, "modality": "xray"}
    seen = score(root, tmp_path / "out", dry_run=True, **options)
    assert listed(tmp_path) == before
    run = score(root, tmp_path / "out", **options)
    planned = {row["path"]: row for row in seen.files.to_pylist()}
    done = {row["path"]: row for row in run.files.to_pylist()}
    assert planned.keys() == done.keys()
    differing = {path for path in done if planned[path]["status"] != done[path]["status"]}
    assert {done[path]["status"] for path in differing} <= {"failed"}, "what only the decoder can tell"
    for path in planned.keys() - differing:
        assert (planned[path]["reason"], planned[path]["modality"]) == (done[path]["reason"], done[path]["modality"])
    assert seen.counts["files"] == run.counts["files"]
    assert sum(seen.planned["formats"].values()) == seen.counts["scored"]
    assert seen.scores.num_rows == 0
    assert seen.report_path is None
    again = score(root, tmp_path / "out", dry_run=True, **options)
    assert again.planned["done_before"] == run.counts["files"]


def test_a_modality_that_only_pixels_tell_is_named_as_such(pack: Path, tmp_path: Path):
    seen = score(small_folder(tmp_path / "in"), tmp_path / "out", model=pack, workers=1, dry_run=True)
    assert seen.planned["modalities"]["to be inferred"] > 0


def test_the_command_says_it_in_words_and_in_json(pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_dicom(tmp_path / "in" / "1.dcm", 1)
    (tmp_path / "in" / "empty.dcm").write_bytes(b"")
    command = ["score", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--model", str(pack), "--dry-run"]
    assert main(command) == 3
    text = capsys.readouterr().out
    assert "2 files: 1 would be read, in 1 study." in text
    assert "failed: empty file" in text
    assert "Dry run: nothing was written." in text
    assert main([*command, "--json"]) == 3
    summary = json.loads(capsys.readouterr().out)
    assert (summary["files"], summary["scored"], summary["report"]) == (2, 1, None)
    assert summary["planned"]["reasons"]["failed"] == {"empty_file": 1}
    assert not (tmp_path / "out").exists()
    assert main([*command, "--log", str(tmp_path / "night.jsonl")]) == 3
    ended = json.loads((tmp_path / "night.jsonl").read_text().splitlines()[-1])
    assert (ended["exit_code"], ended["dry_run"], ended["files_total"], ended["files_done"]) == (3, True, 2, 0)


def test_embedding_is_looked_at_beforehand_too_and_what_there_is_not_is_refused(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    root = small_folder(tmp_path / "in")
    options = {"model": pack, "settings": Settings(home=tmp_path / "home", workers=1), "modality": "xray"}
    before = listed(tmp_path)
    seen = embed(root, tmp_path / "out", dry_run=True, **options)
    assert listed(tmp_path) == before
    with pytest.raises(MedclipError, match="a dry run writes no vectors"):
        seen.vectors()
    assert "pack" in repr(seen)
    run = embed(root, tmp_path / "out", **options)
    only_decoded = seen.counts["embedded"] - run.counts["embedded"]
    assert seen.counts["files"] == run.counts["files"]
    assert 0 <= only_decoded == run.counts["failed"] - seen.counts["failed"], "what only the decoder can tell"
    command = ["embed", str(root), "--out", str(tmp_path / "new"), "--model", str(pack), "--dry-run"]
    assert main([*command, "--modality", "xray"]) == seen.exit_code
    printed = capsys.readouterr().out
    assert f"{seen.counts['files']} files: {seen.counts['embedded']} would be read" in printed
    assert "Dry run: nothing was written." in printed
    assert main([*command, "--modality", "xray", "--json"]) == seen.exit_code
    printed = json.loads(capsys.readouterr().out)
    assert printed["planned"] == seen.planned
    assert not (tmp_path / "new").exists()


def test_a_server_is_counted_and_its_counts_stand_in_words(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    server = FakePacs({f"1.2.{n}": {f"1.2.{n}.1": (IMAGE, part(f"1.2.{n}.1"))} for n in range(3)})
    server.modalities = {"1.2.0": ("CR",), "1.2.1": ("CR", "SR"), "1.2.2": ("CT",)}
    monkeypatch.setattr("medclip.api.remote_arguments.DicomwebServer", lambda place: server)
    for verb in ("score", "embed"):
        command = [verb, "dicomweb://127.0.0.1:1/dicom-web", "--query", "PatientID=1", "--dry-run"]
        command += ["--out", str(tmp_path / "out"), "--model", str(pack)]
        assert main(command) == 0
        printed = capsys.readouterr().out
        assert "3 studies with 3 objects, as the server counts." in printed
        assert "Studies by DICOM modality: CR 2, CT 1 and SR 1" in printed
        assert "nothing was fetched" in printed
        assert main([*command, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["planned"]["listed"]["modalities"] == {"CR": 2, "CT": 1, "SR": 1}
    assert not server.asked
    assert not (tmp_path / "out").exists()


def test_a_wrong_question_is_refused_as_the_run_would_refuse_it(pack: Path, tmp_path: Path):
    write_dicom(tmp_path / "in" / "1.dcm", 1)
    with pytest.raises(MedclipError) as refused:
        score(tmp_path / "in", tmp_path / "out", model=pack, task="stroke", dry_run=True)
    assert refused.value.reason is Reason.WRONG_USE
    embed(tmp_path / "in", tmp_path / "vectors", model=pack, workers=1)
    with pytest.raises(MedclipError, match="embeddings are scored"):
        score(tmp_path / "vectors", tmp_path / "out", model=pack, dry_run=True)
