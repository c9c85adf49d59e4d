"""A call over a PACS that cannot be carried out is refused before a server is asked or a folder is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medclip.api.embed import embed
from medclip.api.score import score
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.files.dicomweb.server import FEW_PAUSES_S, DicomwebServer
from medclip.runs.outputs.score_run import read_run

NOWHERE = "dicomweb://127.0.0.1:1/dicom-web"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"query": ""}, "--query"),
        ({"query": "Modalty=CR"}, "'Modality'"),
        ({"table": "a.csv"}, "--table"),
        ({"hash_paths": True}, "--hash-paths"),
        ({"shard": "1/2"}, "--shard"),
        ({"export": "sr=dicomwebs://user:word@host/x"}, "holds a user"),
        ({"export": f"fhir-r5={NOWHERE}"}, "takes DICOM"),
    ],
)
def test_a_slip_is_said_at_once_and_nothing_is_written(
    tmp_path: Path, pack: Path, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(MedclipError) as refused:
        score(NOWHERE, tmp_path / "out", **{"query": "Modality=CR", "model": pack, **options})
    assert refused.value.reason is Reason.WRONG_USE
    assert sentence in f"{refused.value} {refused.value.hint}"
    assert not (tmp_path / "out").exists()


def test_a_query_without_a_pacs_is_refused(tmp_path: Path, studies: Path, pack: Path) -> None:
    with pytest.raises(MedclipError) as refused:
        score(studies, tmp_path / "out", query="Modality=CR", model=pack)
    assert "no PACS" in str(refused.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"query": ""}, "--query"),
        ({"table": "a.csv"}, "--table"),
        ({"hash_paths": True}, "--hash-paths"),
        ({"shard": "1/2"}, "--shard"),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_embedding_a_pacs_is_refused_what_scoring_it_is(
    tmp_path: Path, pack: Path, options: dict[str, Any], sentence: str, dry_run: bool
) -> None:
    with pytest.raises(MedclipError) as refused:
        embed(NOWHERE, tmp_path / "out", **{"query": "Modality=CR", "model": pack, "dry_run": dry_run, **options})
    assert refused.value.reason is Reason.WRONG_USE
    assert sentence in f"{refused.value} {refused.value.hint}"
    assert not (tmp_path / "out").exists()


def test_a_quiet_night_is_an_empty_run_and_no_error(
    tmp_path: Path, pack: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(DicomwebServer, "studies", lambda self, query: iter(()))
    command = ["score", NOWHERE, "--query", "Modality=CR", "--model", str(pack), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert "No study of this server matches the query." in capsys.readouterr().err
    run = read_run(tmp_path / "out")
    assert (run.counts["files"], run.files.num_rows, run.scores.num_rows) == (0, 0, 0)
    assert main([*command, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["files"], printed["studies"], printed["exit_code"]) == (0, 0, 0)
    monkeypatch.setattr(DicomwebServer, "studies_with_modalities", lambda self, query: iter(()))
    assert main([*command, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == 0
    embedding = ["embed", NOWHERE, *command[2:-1], str(tmp_path / "embedded")]
    assert main(embedding) == 0
    assert main([*embedding, "--json"]) == 0
    capsys.readouterr()
    assert main(["retry", str(tmp_path / "out")]) == 2
    assert "a PACS was queried" in capsys.readouterr().err
    assert main(["retry", str(tmp_path / "out"), "--query", "Modality=CR", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == 0
    assert b"Modality=CR" not in (tmp_path / "out" / "ledger.sqlite").read_bytes()


def test_a_pacs_for_results_that_does_not_answer_is_known_before_anything_is_read(
    tmp_path: Path, pack: Path, studies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("highdicom")
    asked: list[object] = []

    def check(server: DicomwebServer, pauses_s: object = None) -> None:
        asked.append(pauses_s)
        raise MedclipError(Reason.UNREACHABLE, "it could not be read in 4 attempts.", where=server.place)

    monkeypatch.setattr(DicomwebServer, "check", check)
    with pytest.raises(MedclipError) as refused:
        score(studies, tmp_path / "out", model=pack, modality="xray", export=f"sr={NOWHERE}")
    assert refused.value.reason is Reason.UNREACHABLE
    assert asked == [FEW_PAUSES_S]
    assert sum(FEW_PAUSES_S) < 10
    assert not (tmp_path / "out").exists()


def test_a_shard_sends_nothing_and_says_so(tmp_path: Path, pack: Path, studies: Path) -> None:
    with pytest.raises(MedclipError, match="a shard reads files and writes no report"):
        score(studies, tmp_path / "out", model=pack, export=f"sr={NOWHERE}", shard="1/2")
