"""Results for other systems while a run goes on: as at the end, each once, and never in the way of the run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from medclip.api.score import score
from medclip.errors import MedclipError, Reason
from medclip.export import results_folder, running_results
from medclip.export.results_folder import ResultsFolder
from medclip.export.running_results import NOTE, RunningResults, StoreNote
from medclip.export.study_result import StudyResult, StudyRows, committed_rows, read_result, result_of
from medclip.models.packs.card import read_card
from medclip.reports.score.heat_maps import HeatMaps
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.rows import ChunkResult
from tests.kits.mammograms import write_exams
from tests.kits.results import bytes_of, in_folder
from tests.kits.scoring import write_dicom

pytest.importorskip("highdicom")
CALL: dict[str, Any] = {"modality": "xray", "workers": 1}
FORMS = ("sr", "fhir-r4b")


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[ChunkResult]:
    """What ledgers commit in this test."""
    taken: list[ChunkResult] = []
    commit = Ledger.commit

    def keep(ledger: Ledger, result: ChunkResult) -> tuple[int, int]:
        taken.append(result)
        return commit(ledger, result)

    monkeypatch.setattr(Ledger, "commit", keep)
    return taken


def test_the_answers_of_a_chunk_are_those_of_the_complete_ledger(
    pack: Path, studies: Path, tmp_path: Path, commits: list[ChunkResult]
) -> None:
    score(studies, tmp_path / "films", model=pack, modality="xray", workers=1)
    score(write_exams(tmp_path / "in") / "twice", tmp_path / "exams", model=pack, exam=True, workers=1)
    card = read_card(pack)
    early = [result_of(rows, card) for chunk in commits for rows in committed_rows(chunk)]
    complete = []
    for out in ("films", "exams"):
        with Ledger(tmp_path / out, create=False) as ledger:
            complete += [read_result(ledger, key, card) for key in ledger.studies(-1)]
    assert {one.key: _without_numbers(one) for one in early} == {one.key: _without_numbers(one) for one in complete}
    assert len(early) == len(complete) > 7
    assert any(answer.region for one in early for answer in one.answers)


def _without_numbers(result: StudyResult) -> StudyResult:
    """Return a result without numbers of files, which a ledger knows by others until it is complete."""
    files = tuple(replace(file, row=0, unit=None, copy_of=None) for file in result.files)
    return replace(result, files=files)


def test_what_is_written_while_the_run_goes_on_are_the_bytes_of_what_is_written_at_its_end(
    pack: Path, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    score(studies, tmp_path / "out", model=pack, modality="xray", workers=1)
    at_the_end = score(studies, tmp_path / "out", model=pack, export=in_folder(tmp_path / "late", *FORMS), **CALL)
    monkeypatch.setattr(results_folder, "ReadingPool", None)  # nothing is left to be written behind the tables
    run = score(studies, tmp_path / "out2", model=pack, export=in_folder(tmp_path / "early", *FORMS), **CALL)
    assert bytes_of(tmp_path / "early") == bytes_of(tmp_path / "late")
    assert run.exported is not None
    assert at_the_end.exported is not None
    assert run.exported["written"] == at_the_end.exported["written"] == {"sr": 2, "fhir-r4b": 7}
    assert run.exported["without"] == at_the_end.exported["without"]


MAPS = ("sr", "sc")


def _wait(running: RunningResults, num: int) -> None:
    """Wait until so many heat maps are written."""
    folder, until = running._results.folder / "sc", time.monotonic() + 300
    while len(list(folder.glob("*.dcm"))) < num and time.monotonic() < until:
        time.sleep(0.02)


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three studies, at a time that stands still."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    for number in range(3):
        write_dicom(tmp_path / "in" / f"{number}.dcm", number, study_uid=f"1.2.3.{number + 1}")
    return tmp_path / "in"


def test_heat_maps_are_drawn_while_the_run_goes_on_in_the_bytes_of_its_end(
    pack: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score(films, tmp_path / "out", model=pack, modality="xray", workers=1)
    score(films, tmp_path / "out", model=pack, export=in_folder(tmp_path / "late", *MAPS), **CALL)
    end = RunningResults.end

    def end_drawn(running: RunningResults, ledger: Ledger) -> None:
        _wait(running, 3)
        end(running, ledger)

    monkeypatch.setattr(RunningResults, "end", end_drawn)
    monkeypatch.setattr(results_folder, "ReadingPool", None)  # nothing is left to be written behind the tables
    run = score(films, tmp_path / "out2", model=pack, export=in_folder(tmp_path / "early", *MAPS), **CALL)
    assert bytes_of(tmp_path / "early") == bytes_of(tmp_path / "late")
    assert run.exported is not None
    assert run.exported["written"] == {"sr": 3, "sc": 3}


def test_a_run_that_is_stopped_draws_the_maps_that_lack_and_those_of_another_finding_anew(
    pack: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score(films, tmp_path / "out", model=pack, export=in_folder(tmp_path / "undisturbed", *MAPS), **CALL)
    drawn: list[str] = []
    explain = HeatMaps._explain

    def noted(maps: HeatMaps, rows: StudyRows, pool: Any) -> Any:
        drawn.append(rows.scores[0].study)
        return explain(maps, rows, pool)

    def stopped(running: RunningResults, ledger: Ledger) -> None:
        _wait(running, 1)
        running._stop.set()
        running._thread.join()  # pyright: ignore[reportOptionalMemberAccess]
        running._tell(ledger)
        raise KeyboardInterrupt

    monkeypatch.setattr(HeatMaps, "_explain", noted)
    asked: dict[str, Any] = {"model": pack, "export": in_folder(tmp_path / "stopped", *MAPS), **CALL}
    with monkeypatch.context() as patch:
        patch.setattr(RunningResults, "end", stopped)
        with pytest.raises(KeyboardInterrupt):
            score(films, tmp_path / "out2", **asked)
    assert len(list((tmp_path / "stopped" / "sc").iterdir())) == len(drawn) > 0
    score(films, tmp_path / "out2", **asked)
    assert sorted(drawn) == sorted(set(drawn)), "no map is drawn twice"
    assert len(drawn) == 3
    assert bytes_of(tmp_path / "stopped") == bytes_of(tmp_path / "undisturbed")
    drawn.clear()
    finding = "chest_xray_findings:effusion"
    export = in_folder(tmp_path / "stopped", "sr", f"sc:{finding}")
    score(films, tmp_path / "out2", **{**asked, "export": export}, report={"explain": finding})
    assert len(drawn) == 6, "maps of another finding are others, and the report has them, too"


def test_an_answer_that_is_grey_in_the_report_goes_out_with_its_reason(
    pack: Path, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    prompts = {"beyond": "a CT with a lung nodule", "known": "a chest X-ray with pneumonia"}
    asked: dict[str, Any] = {"model": pack, "prompt": list(prompts.values()), **CALL}
    score(studies, tmp_path / "out", **asked)
    score(studies, tmp_path / "out", export=in_folder(tmp_path / "late", *FORMS), **asked)
    run = score(studies, tmp_path / "out2", export=in_folder(tmp_path / "early", *FORMS), **asked)
    (beyond,) = {answers.reason for answers in run.unlearned if answers.class_ == prompts["beyond"]}
    elsewhere = {answers.modality: answers.reason for answers in run.unlearned if answers.class_ == prompts["known"]}
    rows = run.scores.to_pylist()
    assert {row["modality"] for row in rows} - {*elsewhere} == {"xray"}, "the card measured it on films alone"
    text = f"ot learned: {beyond}"
    reasons = []
    assert bytes_of(tmp_path / "early") == bytes_of(tmp_path / "late")
    for path in (tmp_path / "early" / "fhir-r4b").iterdir():
        entries = [entry["resource"] for entry in json.loads(path.read_bytes())["entry"]]
        observations = [one for one in entries if one["resourceType"] == "Observation"]
        assert len(observations) == 2
        for one in observations:
            notes = [note["text"] for note in one.get("note") or ()]
            if prompts["beyond"] in one["code"]["text"]:
                assert notes == [f"N{text}."]
            else:
                reasons += notes
    asked_elsewhere = [row["modality"] for row in rows if row["class"] == prompts["known"]]
    assert sorted(reasons) == sorted(f"Not learned: {elsewhere[m]}." for m in asked_elsewhere if m in elsewhere)
    for path in (tmp_path / "early" / "sr").iterdir():
        assert path.read_bytes().count(f"n{text}".encode()) == 1
    assert run.exported is not None
    assert run.exported["written"] == {"sr": 2, "fhir-r4b": 7}


def test_a_study_that_grew_has_its_files_written_anew_and_the_others_keep_theirs(pack: Path, tmp_path: Path) -> None:
    folder, to = tmp_path / "in", tmp_path / "to"
    for number in (1, 2):
        write_dicom(folder / f"{number}.dcm", number, study_uid=f"1.2.3.{number}")
    calls: dict[str, Any] = {"model": pack, **CALL, "export": in_folder(to, *FORMS)}
    score(folder, tmp_path / "out", **calls)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (to / "sr").iterdir()}
    write_dicom(folder / "3.dcm", 3, study_uid="1.2.3.2")
    score(folder, tmp_path / "out", add=True, **calls)
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (to / "sr").iterdir()}
    assert before.keys() == after.keys()
    assert [before[path] == after[path] for path in before].count(True) == 1


def test_a_study_that_is_no_more_has_no_file(pack: Path, tmp_path: Path) -> None:
    folder, to = tmp_path / "in", tmp_path / "to"
    for number in (1, 2):
        write_dicom(folder / f"{number}.dcm", number, study_uid=f"1.2.3.{number}")
    calls: dict[str, Any] = {"model": pack, **CALL, "export": in_folder(to, *FORMS)}
    score(folder, tmp_path / "out", **calls)
    (folder / "2.dcm").write_bytes(b"no image any more")
    run = score(folder, tmp_path / "out", add=True, **calls)
    assert {path.stem for path in (to / "sr").iterdir()} == {row["study"] for row in run.scores.to_pylist()}
    assert run.exported is not None
    assert run.exported["written"] == {"sr": 1, "fhir-r4b": 1}


def test_what_the_queue_does_not_hold_is_written_at_the_end(
    pack: Path, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    score(studies, tmp_path / "out", model=pack, export=in_folder(tmp_path / "all", *FORMS), **CALL)
    monkeypatch.setattr(running_results, "_MOST_WAITING", 1)
    score(studies, tmp_path / "out2", model=pack, export=in_folder(tmp_path / "few", *FORMS), **CALL)
    assert bytes_of(tmp_path / "few") == bytes_of(tmp_path / "all")


def test_a_disk_that_fails_while_the_run_goes_on_is_reported_and_tried_again_at_the_end(
    pack: Path, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = iter([MedclipError(Reason.DISK_FULL, "the disk is full.")])
    real = ResultsFolder.keep

    def keep(self: ResultsFolder, *arguments: Any) -> Any:
        for fault in faults:
            raise fault
        return real(self, *arguments)

    monkeypatch.setattr(ResultsFolder, "keep", keep)
    run = score(studies, tmp_path / "out", model=pack, export=in_folder(tmp_path / "to", *FORMS), **CALL)
    assert run.exported is not None
    assert run.exported["written"] == {"sr": 2, "fhir-r4b": 7}


@dataclass
class Pacs:
    """Keeps what it is sent until it goes away."""

    place: str = "http://127.0.0.1/dicom-web"
    most: int = 99
    kept: list[bytes] = field(default_factory=list)

    def store(self, content: bytes) -> bool:
        if len(self.kept) >= self.most:
            raise MedclipError(Reason.UNREACHABLE, "it could not be read in 8 attempts.")
        self.kept.append(content)
        return True


@pytest.fixture
def ledger(pack: Path, tmp_path: Path, commits: list[ChunkResult]) -> Iterator[Ledger]:
    """Of a run over three studies, and `commits` has what it committed."""
    for number in range(3):
        write_dicom(tmp_path / "in" / f"{number}.dcm", number, study_uid=f"1.2.3.{number + 1}")
    score(tmp_path / "in", tmp_path / "out", model=pack, modality="xray", workers=1)
    with Ledger(tmp_path / "out") as opened:
        yield opened


def test_studies_are_sent_as_they_are_written_and_the_note_knows_it(
    ledger: Ledger, commits: list[ChunkResult], pack: Path, tmp_path: Path
) -> None:
    pacs, folder = Pacs(), ResultsFolder(tmp_path / "to", ("sr",), lambda name: tmp_path / "in" / name)
    running = RunningResults(folder, read_card(pack), (), [StoreNote(tmp_path / "to", pacs)])
    running.begin(ledger)
    for chunk in commits:
        running.take(ledger, chunk)
    running.end(ledger)
    running.close()
    assert sorted(pacs.kept) == sorted(path.read_bytes() for path in (tmp_path / "to" / "sr").iterdir())
    assert len(pacs.kept) == 3
    assert (tmp_path / "to" / NOTE).exists()
    assert ledger.count_written("sr") == {"": 3}


def test_a_pacs_that_goes_away_ends_the_early_sending_and_not_the_run(
    ledger: Ledger, commits: list[ChunkResult], pack: Path, tmp_path: Path
) -> None:
    pacs, folder = Pacs(most=1), ResultsFolder(tmp_path / "to", ("sr",), lambda name: tmp_path / "in" / name)
    running = RunningResults(folder, read_card(pack), (), [StoreNote(tmp_path / "to", pacs)])
    running.begin(ledger)
    for chunk in commits:
        running.take(ledger, chunk)
    running.end(ledger)
    running.close()
    assert len(pacs.kept) == 1
    assert sum(ledger.count_written("sr").values()) < 3


def test_a_study_that_is_committed_again_while_it_is_written_is_not_taken_for_done(
    ledger: Ledger, commits: list[ChunkResult], pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ResultsFolder(tmp_path / "to", ("sr",), lambda name: tmp_path / "in" / name)
    running = RunningResults(folder, read_card(pack), ())
    running.begin(ledger)
    (chunk,) = commits
    running.take(ledger, chunk)
    while len(running._written) < 3:  # the first answers are written, and the ledger was not told
        running._thread.join(0.01)  # pyright: ignore[reportOptionalMemberAccess]
    monkeypatch.setattr(running, "_queue", _Full())
    running.take(ledger, chunk)
    assert ledger.count_written("sr") == {}
    monkeypatch.undo()
    running.close()


class _Full:
    """A queue that takes nothing."""

    def put_nowait(self, item: object) -> None:
        raise running_results.Full


def test_an_interrupt_ends_the_thread_at_once(
    ledger: Ledger, commits: list[ChunkResult], pack: Path, tmp_path: Path
) -> None:
    folder = ResultsFolder(tmp_path / "to", ("sr",), lambda name: tmp_path / "in" / name)
    running = RunningResults(folder, read_card(pack), ())
    running.begin(ledger)
    running.take(ledger, commits[0])
    running.close()
    assert running._thread is not None
    assert not running._thread.is_alive()
