"""The page of a finished run is written anew as its options say, and nothing is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import medclip
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.models.model import Model
from tests.kits.results import bytes_of
from tests.kits.scoring import digests, write_dicom, write_png
from tests.kits.stores import memory_store

__all__ = ["memory_store"]
ASKED: dict[str, Any] = {"modality": "xray", "workers": 1, "task": "chest_xray_findings"}
LOOKS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "sorted": {"sort_by": "chest_xray_findings:effusion"},
    "with paths": {"report_paths": True},
    "with heat maps": {"explain": "top", "sort_by": "chest_xray_findings:effusion", "report_paths": True},
}


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Two studies and a picture."""
    for number in (1, 2):
        write_dicom(tmp_path / "in" / f"{number}.dcm", number, study_uid=f"1.2.3.{number}")
    write_png(tmp_path / "in" / "3.png", 3)
    return tmp_path / "in"


@pytest.mark.parametrize("look", LOOKS)
def test_the_page_afterwards_is_the_page_that_score_writes_with_the_same_options(
    films: Path, pack: Path, tmp_path: Path, look: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = medclip.score(films, tmp_path / "at_once", model=pack, **ASKED, report=LOOKS[look])
    plain = medclip.score(films, tmp_path / "out", model=pack, **ASKED)
    tables = {n: d for n, d in digests(tmp_path / "out").items() if n != "report.html"}
    if "explain" not in LOOKS[look]:
        monkeypatch.setattr(Model, "__init__", None)  # no model is loaded
    run = medclip.runs.report(tmp_path / "out", **LOOKS[look])
    assert bytes_of(tmp_path / "out").keys() == bytes_of(tmp_path / "at_once").keys()
    assert run.report_path is not None
    assert at_once.report_path is not None
    assert run.report_path.read_bytes() == at_once.report_path.read_bytes()
    assert run.answers == at_once.answers
    assert {n: d for n, d in digests(tmp_path / "out").items() if n != "report.html"} == tables
    assert run.counts == plain.counts
    again = medclip.score(films, tmp_path / "out", model=pack, **ASKED)
    assert again.already_finished


def test_a_run_of_embeddings_has_its_page_in_another_order_and_no_heat_maps(
    films: Path, pack: Path, tmp_path: Path
) -> None:
    medclip.embed(films, tmp_path / "e", model=pack, modality="xray", workers=1)
    asked = {"model": pack, "task": "chest_xray_findings"}
    at_once = medclip.score(tmp_path / "e", tmp_path / "at_once", **asked, report=LOOKS["sorted"])
    medclip.score(tmp_path / "e", tmp_path / "out", **asked)
    run = medclip.runs.report(tmp_path / "out", **LOOKS["sorted"])
    assert run.report_path is not None
    assert at_once.report_path is not None
    assert run.report_path.read_bytes() == at_once.report_path.read_bytes()
    with pytest.raises(MedclipError, match="embeddings are scored"):
        medclip.runs.report(tmp_path / "out", explain="top")
    with pytest.raises(MedclipError, match="there is no finished scoring run here") as refused:
        medclip.runs.report(tmp_path / "e")
    assert refused.value.reason is Reason.MISSING_FILE


def test_a_run_that_hashes_paths_shows_none(films: Path, pack: Path, tmp_path: Path) -> None:
    medclip.score(films, tmp_path / "out", model=pack, **ASKED, hash_paths=True)
    run = medclip.runs.report(tmp_path / "out", sort_by="chest_xray_findings:effusion")
    assert run.report_path is not None
    assert "1.dcm" not in run.report_path.read_text()
    with pytest.raises(MedclipError, match="paths are either hashed or shown"):
        medclip.runs.report(tmp_path / "out", report_paths=True)
    with pytest.raises(MedclipError, match="paths are hashed"):
        medclip.runs.report(tmp_path / "out", explain="top")


def test_the_page_of_a_published_run_is_published_again(
    memory_store: Any, films: Path, pack: Path, tmp_path: Path
) -> None:
    medclip.score(films, "memory://results/in", work=tmp_path / "work", model=pack, **ASKED)
    medclip.runs.report(tmp_path / "work", sort_by="chest_xray_findings:effusion")
    page = memory_store.store["/results/in/report.html"].getvalue()
    assert page == (tmp_path / "work" / "report.html").read_bytes()
    assert b"Sorted by the probability of" in page
    assert "/results/in/run.json" in memory_store.store


def test_images_that_moved_are_named_and_those_that_are_gone_refused(films: Path, pack: Path, tmp_path: Path) -> None:
    medclip.score(films, tmp_path / "out", model=pack, **ASKED)
    moved = films.rename(tmp_path / "moved")
    with pytest.raises(MedclipError, match="they are not where they were"):
        medclip.runs.report(tmp_path / "out", explain="top")
    medclip.runs.report(tmp_path / "out", explain="top", images=moved)
    assert "heat map" in (tmp_path / "out" / "report.html").read_text()


def test_what_cannot_be_is_refused_and_the_page_stays(
    films: Path, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    medclip.score(films, tmp_path / "out", model=pack, **ASKED)
    before = bytes_of(tmp_path / "out")
    for words, said in (
        (("--sort-by", "chest_xray_findings:efusion"), "Did you mean 'effusion'"),
        (("--explain", " "), "nothing is named to explain"),
        (("--explain", "fundus_cataract"), "does not ask"),
    ):
        assert main(["report", str(tmp_path / "out"), *words]) == 2
        assert said in capsys.readouterr().err
    assert main(["report", str(tmp_path / "nothing")]) == 2
    after = bytes_of(tmp_path / "out")
    assert {n: d for n, d in after.items() if "ledger" not in n} == {
        n: d for n, d in before.items() if "ledger" not in n
    }
    for report, said in (
        ({"sortby": "x"}, "report has no option 'sortby'"),
        ({"explain": 3}, "explain does not take 3"),
    ):
        with pytest.raises(MedclipError, match=said):
            medclip.score(films, tmp_path / "other", model=pack, **ASKED, report=report)
    assert not (tmp_path / "other").exists()
