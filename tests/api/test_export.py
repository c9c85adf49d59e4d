"""Results for other systems are the same bytes whether a run writes them as it goes or they are made afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import medclip
from medclip.api.export import Exports, parse_exports
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.export import results_folder
from medclip.files.dicomweb.server import DicomwebServer
from tests.kits.results import bytes_of, in_folder
from tests.kits.scoring import digests, write_dicom, write_png

pytest.importorskip("highdicom")
ASKED: dict[str, Any] = {"modality": "xray", "workers": 1}
NOWHERE = "dicomweb://127.0.0.1:1/dicom-web"


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two studies and a picture, at a time that stands still."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    for number in (1, 2):
        write_dicom(tmp_path / "in" / f"{number}.dcm", number, study_uid=f"1.2.3.{number}")
    write_png(tmp_path / "in" / "3.png", 3)
    return tmp_path / "in"


@pytest.mark.slow
def test_results_afterwards_are_the_bytes_of_those_that_the_run_writes(
    films: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forms = ("sr", "sc:chest_xray_view:pa", "fhir-r4b", "fhir-r5")
    at_once = medclip.score(
        films, tmp_path / "at_once", model=pack, **ASKED, export=["csv", *in_folder(tmp_path / "early", *forms)]
    )
    medclip.score(films, tmp_path / "out", model=pack, **ASKED)
    tables = digests(tmp_path / "out")
    exported = medclip.runs.export(tmp_path / "out", as_=["csv", *forms], to=tmp_path / "late")
    assert bytes_of(tmp_path / "late") == bytes_of(tmp_path / "early")
    assert at_once.exported is not None
    written = {"sr": 2, "sc": 2, "fhir-r4b": 3, "fhir-r5": 3}
    assert dict(exported.written) == at_once.exported["written"] == written
    assert exported.without == at_once.exported["without"]
    csv = ("files.csv", "scores.csv")
    assert {n: (tmp_path / "out" / n).read_bytes() for n in csv} == {
        n: (tmp_path / "at_once" / n).read_bytes() for n in csv
    }
    assert {n: d for n, d in digests(tmp_path / "out").items() if not n.endswith(".csv")} == tables
    monkeypatch.setattr(results_folder, "ReadingPool", None)  # what is there is not written again
    again = medclip.runs.export(tmp_path / "out", as_=forms, to=tmp_path / "late")
    assert again.written == exported.written
    assert medclip.score(films, tmp_path / "out", model=pack, **ASKED).already_finished


def test_where_no_place_is_named_they_lie_in_the_output_folder(
    films: Path, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    medclip.score(films, tmp_path / "out", model=pack, **ASKED)
    assert main(["export", str(tmp_path / "out"), "--as", "fhir-r5", "--as", "sr", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["folder"] == str(tmp_path / "out" / "results")
    assert said["written"] == {"fhir-r5": 3, "sr": 2}
    assert len(list((tmp_path / "out" / "results" / "sr").iterdir())) == 2
    assert main(["export", str(tmp_path / "out"), "--as", "csv"]) == 0
    assert (tmp_path / "out" / "scores.csv").read_text().startswith('"study"')
    medclip.score(films, tmp_path / "other", model=pack, **ASKED, export="sr")
    assert len(list((tmp_path / "other" / "results" / "sr").iterdir())) == 2


def test_they_are_sent_to_a_pacs_once_and_what_it_refuses_is_counted(
    films: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[bytes] = []
    is_taken = True

    def store(self: DicomwebServer, content: bytes) -> bool:
        if is_taken:
            sent.append(content)
        return is_taken

    monkeypatch.setattr(DicomwebServer, "check", lambda *_: None)
    monkeypatch.setattr(DicomwebServer, "store", store)
    medclip.score(films, tmp_path / "out", model=pack, **ASKED)
    is_taken = False
    assert main(["export", str(tmp_path / "out"), "--as", "sr", "--to", NOWHERE]) == 3
    is_taken = True
    for _ in range(2):
        assert main(["export", str(tmp_path / "out"), "--as", "sr", "--to", NOWHERE, "--json"]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["stored"] == {"stored": 2, "refused": 0}
    assert sorted(sent) == sorted(p.read_bytes() for p in (tmp_path / "out" / "results" / "sr").iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--as", "hl7"), "results have no format 'hl7'"),
        (("--as", "fhir-r5", "--to", NOWHERE), "a PACS takes DICOM"),
        (("--as", "sr", "--to", "out"), "this is the output folder"),
        (("--as", "csv", "--to", "tables"), "CSV tables lie beside the others"),
        (("--as", "sr", "--to", "in/results"), "would take them for new files"),
        (("--as", "sc:fundus_cataract"), "does not ask"),
        (("--as", "sr", "--images", "gone"), "they are not where they were"),
        ((), "Missing option"),
    ],
)
def test_what_cannot_be_written_is_refused_and_nothing_is(
    films: Path,
    pack: Path,
    tmp_path: Path,
    words: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    medclip.score(films, tmp_path / "out", model=pack, **ASKED, task="chest_xray_view")
    capsys.readouterr()
    assert main(["export", "out", *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "results").exists()
    assert not (films / "results").exists()


def test_runs_that_name_no_file_have_none(films: Path, pack: Path, tmp_path: Path) -> None:
    medclip.score(films, tmp_path / "hashed", model=pack, **ASKED, hash_paths=True)
    medclip.embed(films, tmp_path / "e", model=pack, **ASKED)
    medclip.score(tmp_path / "e", tmp_path / "stored", model=pack)
    for out, said in (("hashed", "paths are hashed"), ("stored", "embeddings are scored")):
        with pytest.raises(MedclipError, match=said) as refused:
            medclip.runs.export(tmp_path / out, as_="sr")
        assert refused.value.reason is Reason.WRONG_USE
        medclip.runs.export(tmp_path / out, as_="csv")
        assert (tmp_path / out / "scores.csv").exists()
    with pytest.raises(MedclipError, match="there is no finished scoring run here"):
        medclip.runs.export(tmp_path / "e", as_="csv")


def test_forms_and_places_are_read(tmp_path: Path) -> None:
    assert parse_exports("csv") == Exports(tables=("csv",))
    assert parse_exports(["sr", "sr=to", f"sc:chest_xray_view:pa={NOWHERE}"]) == Exports(
        (), ("sr", "sc"), "chest_xray_view:pa", "to", NOWHERE
    )
    for wrong, said in (
        ("sr=", "no folder for them"),
        ("csv=to", "beside the others"),
        ("sr:task", "of heat maps alone"),
        (["sr=a", "sr=b"], "one folder"),
        (["sr=a", "fhir-r5", "csv"], "none is named for fhir-r5"),
        ([f"sr={NOWHERE}", f"sc={NOWHERE}2"], "one PACS"),
    ):
        with pytest.raises(MedclipError, match=said):
            parse_exports(wrong)
