"""A watched folder: what comes is scored as it comes, what moves is left, and a stop is an end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from medclip.api import watch as watch_module
from medclip.api.score import score
from medclip.api.watch import watch
from medclip.errors import MedclipError, Reason
from medclip.files.stores import RemotePath
from medclip.runs.outputs import publication
from medclip.runs.outputs.results import output_files
from medclip.runs.outputs.score_run import read_run
from tests.kits.progress import Recorded
from tests.kits.scoring import STUDY_UID, digests, rows, write_dicom
from tests.kits.stores import memory_store

__all__ = ["memory_store"]

OPTIONS = {"prompt": "a fracture", "min_confidence": 0.0, "workers": 1}


def test_what_is_there_is_scored_as_medclip_score_does(tmp_path: Path, pack: Path) -> None:
    write_dicom(tmp_path / "in" / "a" / "1.dcm", 1)
    run = watch(tmp_path / "in", tmp_path / "out", settle_s=0.05, once=True, model=pack, **OPTIONS)
    score(tmp_path / "in", tmp_path / "folder", model=pack, **OPTIONS)
    assert run is not None
    assert digests(tmp_path / "out") == digests(tmp_path / "folder")


def test_a_file_that_grows_is_left_until_it_is_whole(
    tmp_path: Path, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dicom(tmp_path / "in" / "a" / "1.dcm", 1)
    content = write_dicom(tmp_path / "whole.dcm", 2, study_uid=f"{STUDY_UID}.2").read_bytes()
    (tmp_path / "in" / "b").mkdir()
    late = tmp_path / "in" / "b" / "2.dcm"
    late.write_bytes(content[:500])
    grown = threading.Event()
    read: list[list[str]] = []

    def slow_writer() -> None:
        for at in range(500, len(content), len(content) // 8):
            time.sleep(0.2)
            with late.open("ab") as file:
                file.write(content[at : at + len(content) // 8])
        grown.set()

    def noted_score(*args: object, **options: object) -> object:
        read.append([str(path) for path in options["exclude"]])  # pyright: ignore[reportGeneralTypeIssues]
        return score(*args, **options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(watch_module, "score", noted_score)
    writer = threading.Thread(target=slow_writer)
    writer.start()
    run = watch(tmp_path / "in", tmp_path / "out", settle_s=0.8, once=True, model=pack, **OPTIONS)
    writer.join()
    assert run is not None
    assert grown.is_set()
    assert late.read_bytes() == content
    assert {path: row["status"] for path, row in rows(run).items()} == {"a/1.dcm": "scored", "b/2.dcm": "scored"}
    assert all(str(late) in left_out for left_out in read[:-1])


def test_a_folder_without_a_file_is_waited_for_and_once_returns_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert watch(tmp_path / "in", tmp_path / "out", settle_s=0, once=True) is None
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_waited_for_and_a_wrong_model_is_not(
    tmp_path: Path, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dicom(tmp_path / "in" / "1.dcm", 1)
    monkeypatch.setattr(watch_module, "EVERY_S", 0.01)
    monkeypatch.setattr(watch_module, "_LONGEST_S", 0.02)
    calls: list[int] = []

    def full_at_first(*args: object, **options: object) -> object:
        calls.append(1)
        if len(calls) < 3:
            raise MedclipError(Reason.DISK_FULL, "the disk is full.")
        if len(calls) > 3:
            raise KeyboardInterrupt
        write_dicom(tmp_path / "in" / "2.dcm", 2)  # something comes, so that there is a fourth call
        return score(*args, **options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(watch_module, "score", full_at_first)
    with pytest.raises(KeyboardInterrupt):
        watch(tmp_path / "in", tmp_path / "out", settle_s=0.01, model=pack, **OPTIONS)
    assert len(calls) == 4
    monkeypatch.setattr(watch_module, "score", score)
    with pytest.raises(MedclipError) as refused:
        watch(tmp_path / "in", tmp_path / "other", settle_s=0.01, model=tmp_path / "none", **OPTIONS)
    assert refused.value.reason is Reason.PACK_NOT_FOUND


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    file = write_dicom(tmp_path / "1.dcm", 1)
    with pytest.raises(MedclipError) as refused:
        watch(file, tmp_path / "out")
    assert refused.value.reason is Reason.WRONG_USE


def test_each_call_sends_to_a_store_what_has_changed_and_a_store_that_is_away_ends_nothing(
    tmp_path: Path, pack: Path, memory_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dicom(tmp_path / "in" / "a" / "1.dcm", 1)
    honest, away = publication.write_object, [True]

    def write(place: RemotePath, content: Any) -> None:
        if place.name == "scores.parquet" and away:
            away.clear()
            write_dicom(tmp_path / "in" / "b" / "2.dcm", 2)  # meanwhile something comes
            raise MedclipError(Reason.UNREACHABLE, "the store is away.")
        honest(place, content)

    monkeypatch.setattr(publication, "write_object", write)
    monkeypatch.setattr(watch_module, "EVERY_S", 0.05)
    calls: list[int] = []

    def ending_score(*args: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        run = score(*args, **options)  # pyright: ignore[reportArgumentType]
        write_dicom(tmp_path / "in" / "c" / "3.dcm", 3)  # so that there is a third call
        return run

    monkeypatch.setattr(watch_module, "score", ending_score)
    work = tmp_path / "in" / "work"
    with pytest.raises(KeyboardInterrupt):
        watch(tmp_path / "in", "memory://results/in", work=work, settle_s=0.01, model=pack, **OPTIONS)
    objects = {name.removeprefix("/results/in/"): bytes(file.getvalue()) for name, file in memory_store.store.items()}
    assert objects.pop(publication.MARKER)
    assert objects == {name: (work / name).read_bytes() for name in output_files(work)}
    assert len(read_run(work).files) == 2
    with pytest.raises(MedclipError, match="need a folder of a disk for the ledger") as refused:
        watch(tmp_path / "in", "memory://results/in")
    assert "--work DIR" in refused.value.hint


@pytest.mark.slow
def test_sigterm_between_two_calls_is_the_regular_end(tmp_path: Path, pack: Path) -> None:
    write_dicom(tmp_path / "in" / "1.dcm", 1)
    command = [sys.executable, "-m", "medclip.cli.main", "watch", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    command += [
        "--settle-s",
        "0.1",
        "--model",
        str(pack),
        "--prompt",
        "a fracture",
        "--modality",
        "xray",
        "--workers",
        "1",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        deadline = time.monotonic() + 120
        while not (tmp_path / "out" / "run.json").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        write_dicom(tmp_path / "in" / "2.dcm", 2)
        while time.monotonic() < deadline and b"2.dcm" not in (tmp_path / "out" / "files.parquet").read_bytes():
            time.sleep(0.1)
        time.sleep(3)  # until the second call has ended
        process.send_signal(signal.SIGTERM)
        printed = process.stdout.read()
        assert process.wait(60) == 0
    assert "2 files: 2 scored" in printed


def test_what_has_no_real_name_yet_is_left_alone_and_has_its_row_once_it_has_one(
    tmp_path: Path, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "in"
    for number, name in enumerate(
        ("1.dcm", "2.dcm.part", ".3.dcm.a1B2c3", "~4.dcm", "5.tmp/5.dcm", "6.dcm.crdownload")
    ):
        write_dicom(root / name, number, study_uid=f"{STUDY_UID}.{number}")
    progress = Recorded()
    run = watch(root, tmp_path / "out", settle_s=0.05, once=True, model=pack, progress=progress, **OPTIONS)
    assert run is not None
    assert list(rows(run)) == ["1.dcm"]
    (note,) = [note for note in progress.notes if "real name" in note]
    assert note.startswith("5 files or folders wait for a real name")
    for name, real in (("2.dcm.part", "2.dcm"), (".3.dcm.a1B2c3", "3.dcm"), ("~4.dcm", "4.dcm"), ("5.tmp", "5")):
        (root / name).rename(root / real)
    (root / "6.dcm.crdownload").rename(root / "6.dcm")
    run = watch(root, tmp_path / "out", settle_s=0.05, once=True, model=pack, **OPTIONS)
    plain = score(root, tmp_path / "plain", model=pack, **OPTIONS)
    assert run is not None
    assert run.files.equals(plain.files)
    assert run.scores.equals(plain.scores)


def test_a_night_that_read_half_of_a_file_is_settled_by_the_watch_that_goes_on(tmp_path: Path, pack: Path) -> None:
    root = tmp_path / "in"
    write_dicom(root / "1.dcm", 1)
    content = write_dicom(root / "2.dcm.part", 2).read_bytes()
    (root / "2.dcm.part").write_bytes(content[:-500])
    night = score(root, tmp_path / "out", model=pack, **OPTIONS)
    assert rows(night)["2.dcm.part"]["reason"] == "truncated"  # a plain call has a row for every file that is there
    (root / "2.dcm.part").write_bytes(content)
    (root / "2.dcm.part").rename(root / "2.dcm")
    run = watch(root, tmp_path / "out", settle_s=0.05, once=True, model=pack, **OPTIONS)
    assert run is not None
    assert (run.exit_code, run.counts["files"]) == (0, 2)
    assert run.files.equals(score(root, tmp_path / "plain", model=pack, **OPTIONS).files)
