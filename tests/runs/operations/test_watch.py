"""What a run writes for programs that watch it."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from medclip.api.embed import embed
from medclip.api.score import score
from medclip.errors import MedclipError, Reason
from medclip.files.output import disk_errors
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.operations import watch as watch_module
from tests.kits.progress import Recorded
from tests.kits.scoring import PLANTED, STUDY_UID, digests, small_folder


def events(path: Path) -> list[dict[str, Any]]:
    """The lines of a log."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def values(path: Path) -> dict[tuple[str, str], float]:
    """The values of metrics, by their name and the reason or kind that they are of."""
    samples = (s for f in text_string_to_metric_families(path.read_text()) for s in f.samples)
    return {(s.name, s.labels.get("reason") or s.labels.get("kind", "")): s.value for s in samples}


def test_a_log_counts_every_file_and_holds_no_path_and_no_identifier(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watch_module, "SECONDS", 0.0)
    root = small_folder(tmp_path / "in")
    log, metrics = tmp_path / "night.jsonl", tmp_path / "night.prom"
    run = score(root, tmp_path / "out", model=pack, workers=1, log=[log, metrics])
    lines = events(log)
    assert (lines[0]["event"], lines[-1]["event"]) == ("run_started", "run_ended")
    assert {line["event"] for line in lines[1:-1]} == {"progress"}
    last = lines[-1]
    assert (last["exit_code"], last["error"]) == (run.exit_code, None)
    assert last["processed"] == {name: run.counts[name] for name in ("scored", "skipped", "failed")}
    assert sum(last["reasons"]["failed"].values()) == run.counts["failed"]
    assert (last["files_done"], last["files_total"], last["studies"]) == (
        run.counts["files"],
        run.counts["files"],
        run.counts["studies"],
    )
    assert all(last["work"][kind]["seconds"] > 0 for kind in ("read", "decode", "model", "write"))
    text = log.read_text() + metrics.read_text()
    names = {path.name for path in root.rglob("*.*")}
    assert names
    for identifying in (*PLANTED.values(), STUDY_UID, str(root), str(tmp_path), *names):
        assert identifying not in text
    read = values(metrics)
    assert read[("medclip_run_files_done", "")] == run.counts["files"]
    assert read[("medclip_run_exit_code", "")] == run.exit_code
    assert read[("medclip_run_running", "")] == 0
    assert sum(v for (name, _), v in read.items() if name == "medclip_run_files_processed_total") == len(run.files)
    assert run.work is not None
    assert run.work["wall_s"] > 0


def test_watching_changes_no_byte_of_the_results(pack: Path, tmp_path: Path):
    root = small_folder(tmp_path / "in")
    score(root, tmp_path / "one", model=pack, workers=1, log=None)  # pyright: ignore
    score(root, tmp_path / "two", model=pack, workers=1, log=[tmp_path / "l.jsonl", tmp_path / "m.prom"])
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_a_refusal_and_a_stop_are_events_with_their_exit_codes(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    log, metrics = tmp_path / "night.jsonl", tmp_path / "night.prom"
    with pytest.raises(MedclipError):
        score(tmp_path / "gone", tmp_path / "out", model=pack, log=[log, metrics])
    refused = events(log)[-1]
    assert (refused["event"], refused["exit_code"], refused["error"]) == ("run_ended", 2, "missing_file")
    assert values(metrics)[("medclip_run_exit_code", "")] == 2

    def stop(self: Ledger, result: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Ledger, "commit", stop)
    with pytest.raises(KeyboardInterrupt):
        score(small_folder(tmp_path / "in"), tmp_path / "out", model=pack, workers=1, log=log)
    stopped = events(log)[-1]
    assert (stopped["exit_code"], stopped["error"]) == (130, "interrupted")


def test_a_log_in_the_folder_that_is_read_is_refused_and_one_in_the_output_folder_is_not(pack: Path, tmp_path: Path):
    root = small_folder(tmp_path / "in")
    for log in (root / "night.jsonl", [root / "deep" / ".." / "night.prom"]):
        (root / "deep").mkdir(exist_ok=True)
        with pytest.raises(MedclipError, match="lies in the folder that is read") as error:
            score(root, tmp_path / "out", model=pack, workers=1, log=log)
        assert error.value.reason == Reason.WRONG_USE
        assert not (tmp_path / "out").exists()
    score(root, root / "results", model=pack, workers=1)
    inside = score(root, root / "results", model=pack, workers=1, log=root / "results" / "night.jsonl")
    assert events(root / "results" / "night.jsonl")[-1]["exit_code"] == inside.exit_code


def test_a_finished_run_says_so_and_embedding_is_watched_as_scoring_is(pack: Path, tmp_path: Path):
    root, log = small_folder(tmp_path / "in"), tmp_path / "night.jsonl"
    progress = Recorded()
    embed(root, tmp_path / "vectors", model=pack, workers=1, log=log, progress=progress)
    assert progress.notes[-1].startswith("Work: read ")
    embed(root, tmp_path / "vectors", model=pack, workers=1, log=log)
    ends = [line for line in events(log) if line["event"] == "run_ended"]
    assert [(end["command"], end["already_finished"]) for end in ends] == [("embed", False), ("embed", True)]
    assert [sum(end["processed"].values()) > 0 for end in ends] == [True, False]
    run = score(tmp_path / "vectors", tmp_path / "answers", model=pack, log=log)
    assert events(log)[-1]["files_done"] == run.counts["files"]


def test_metrics_say_when_they_were_written_so_that_a_killed_command_is_found(tmp_path: Path):
    seconds = iter([1000.0, 1060.0, 1120.0])
    watch = watch_module.RunWatch("score", [tmp_path / "night.prom"], now=lambda: next(seconds))
    watch.started({}, {"files": 0, "studies": 0}, 0)
    watch.end()
    known = values(tmp_path / "night.prom")
    assert known[("medclip_run_start_time_seconds", "")] == 1000.0
    assert known[("medclip_run_update_time_seconds", "")] == 1120.0


def test_a_drive_without_modes_takes_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise PermissionError(1, "a drive without modes")

    place = tmp_path / "night.prom"
    watch = watch_module.RunWatch("score", [place])
    monkeypatch.setattr(watch_module.os, "chmod", refuse)
    watch.started({}, {"files": 0, "studies": 0}, 0)
    assert values(place)[("medclip_run_running", "")] == 1


def test_metrics_that_cannot_be_written_are_noted_once_and_written_when_they_can_be_again(tmp_path: Path):
    log, folder = tmp_path / "night.jsonl", tmp_path / "collector"
    notes: list[str] = []
    watch = watch_module.RunWatch("score", [log, folder / "night.prom"], note=notes.append)
    none = {"files": 0, "studies": 0}
    for _ in range(2):
        folder.write_text("a file in the place of a folder that vanished")
        watch.started({}, none, 0)
        watch.started({}, none, 0)
        folder.unlink()
        watch.started({}, none, 0)
        assert values(folder / "night.prom")[("medclip_run_running", "")] == 1
        (folder / "night.prom").unlink()
        folder.rmdir()
    watch.end()
    (note,) = set(notes)
    assert len(notes) == 2
    assert note.startswith(f"No metrics: {folder / 'night.prom'}: this cannot be written")
    lines = events(log)
    reasons = [line["reason"] for line in lines if line["event"] == "metrics_not_written"]
    assert reasons == ["wrong_use"] * 2
    assert str(tmp_path) not in log.read_text()
    assert lines[-1]["exit_code"] == 0


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_collector_whose_folder_takes_nothing_costs_no_run_and_no_exit_code(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    @contextmanager
    def full(target: Path, **_: Any) -> Iterator[Path]:
        with disk_errors(target):
            raise OSError(number, "refused")
        yield target

    def claim(target: Path, **_: Any) -> None:
        with full(target):
            pass

    monkeypatch.setattr(watch_module, "new_file", full)
    monkeypatch.setattr(watch_module, "claim_file", claim)
    root, log, progress = small_folder(tmp_path / "in"), tmp_path / "night.jsonl", Recorded()
    options: dict[str, Any] = {"model": pack, "workers": 1}
    run = score(root, tmp_path / "out", log=[tmp_path / "c" / "m.prom", log], progress=progress, **options)
    plain = score(root, tmp_path / "plain", **options)
    assert run.exit_code == plain.exit_code == events(log)[-1]["exit_code"]
    assert digests(tmp_path / "out") == digests(tmp_path / "plain")
    assert sum(note.startswith("No metrics: ") for note in progress.notes) == 1
    assert [line["event"] for line in events(log)].count("metrics_not_written") == 1


def test_metrics_that_can_only_be_a_mistake_are_refused(tmp_path: Path):
    others = tmp_path / "others.prom"
    others.write_text("node_load1 0.5\n")
    (tmp_path / "folder.prom").mkdir()
    for place in (others, tmp_path / "folder.prom"):
        with pytest.raises(MedclipError) as caught:
            watch_module.RunWatch("score", [place])
        assert caught.value.reason is Reason.WRONG_USE
    assert others.read_text() == "node_load1 0.5\n"
