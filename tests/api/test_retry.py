"""Files that failed are tried again by their run's folder alone."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import medclip
from medclip.api.asked import arguments_again, not_kept, what_was_asked
from medclip.api.score import ScoringOptions
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.progress import Silent
from medclip.runs.outputs.score_run import ScoreRun
from medclip.settings import PixelPolicy, ReadPolicy, Settings
from tests.kits.scoring import digests, make_pack, write_png
from tests.kits.slides import draw_section, make_pathology_pack, write_pyramid


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("packs") / "tiny")


def _folder(root: Path) -> Path:
    for n in range(3):
        write_png(root / f"{n}.png", n)
    (root / "empty.png").touch()
    (root / "cut.png").write_bytes((root / "1.png").read_bytes()[:200])
    return root


def test_a_file_that_is_whole_now_is_scored_and_the_tables_are_those_of_a_run_that_found_it_so(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = _folder(tmp_path / "in")
    options = {"model": pack, "modality": "xray", "prompt": ["a fracture"], "workers": 1}
    monkeypatch.chdir(tmp_path)
    assert medclip.score("in", "out", **options, settings=Settings(decode_timeout_s=60.0)).counts["failed"] == 2
    write_png(root / "empty.png", 8)
    monkeypatch.chdir("/")
    run = medclip.retry(tmp_path / "out", reason="empty_file")
    assert isinstance(run, ScoreRun)
    assert (run.counts["scored"], run.counts["failed"]) == (4, 1)
    shutil.rmtree(tmp_path / "whole", ignore_errors=True)
    medclip.score(root, tmp_path / "whole", **options)
    tables = {"files.parquet", "scores.parquet"}
    assert {n: d for n, d in digests(tmp_path / "out").items() if n in tables} == {
        n: d for n, d in digests(tmp_path / "whole").items() if n in tables
    }


def test_where_no_file_failed_for_the_reason_nothing_is_computed(pack: Path, tmp_path: Path) -> None:
    medclip.score(_folder(tmp_path / "in"), tmp_path / "out", model=pack, modality="xray", workers=1)
    before = digests(tmp_path / "out")
    assert medclip.retry(tmp_path / "out", reason="timeout").already_finished
    assert digests(tmp_path / "out") == before


def test_the_command_ends_as_the_run_does_and_embeddings_are_tried_again_too(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = _folder(tmp_path / "in")
    medclip.embed(root, tmp_path / "e", model=pack, modality="xray", workers=1)
    write_png(root / "empty.png", 8)
    assert main(["retry", str(tmp_path / "e"), "--reason", "empty_file", "--workers", "1", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["embedded"] == 4
    assert main(["retry", str(tmp_path / "e"), "--reason", "emty_file"]) == 2
    refused = capsys.readouterr().err
    assert "Did you mean 'empty_file'?" in refused
    assert "Files failed for: truncated (1); or 'all'." in refused
    assert "timeout" not in refused
    assert main(["retry", str(tmp_path / "in")]) == 2


def test_a_run_that_keeps_no_paths_or_was_given_arrays_says_what_to_do(pack: Path, tmp_path: Path) -> None:
    root = _folder(tmp_path / "in")
    medclip.score(root, tmp_path / "hashed", model=pack, modality="xray", workers=1, hash_paths=True)
    array = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    medclip.score([array], tmp_path / "array", model=pack, modality="xray", workers=1)
    for out in ("hashed", "array"):
        with pytest.raises(MedclipError, match="does not keep what it was asked") as caught:
            medclip.retry(tmp_path / out)
        assert caught.value.reason is Reason.WRONG_USE
        assert "--path" in caught.value.hint
        assert "repeat its command, which tries them again" in caught.value.hint
    assert str(root).encode() not in (tmp_path / "hashed" / "ledger.sqlite").read_bytes()
    write_png(root / "empty.png", 8)
    run = medclip.score(root, tmp_path / "hashed", model=pack, modality="xray", workers=1, hash_paths=True)
    assert (run.counts["scored"], run.counts["failed"]) == (4, 1)
    assert medclip.score(
        root, tmp_path / "hashed", model=pack, modality="xray", workers=1, hash_paths=True
    ).already_finished


def test_slides_that_failed_are_tried_again_in_the_stage_whose_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "in"
    root.mkdir()
    write_pyramid(root / "a.tiff", draw_section(700, 900))
    whole = (root / "a.tiff").read_bytes()
    (root / "b.tiff").write_bytes(whole[:20_000])
    monkeypatch.chdir(tmp_path)
    pathology = make_pathology_pack(tmp_path / "pathology")
    stages = ("tissue", "patches", "embed")
    assert main(["slides", "tissue", "in", "--out", "out", "--workers", "1"]) == 3
    options = ["--size-px", "128", "--patch-mpp-um", "1", "--workers", "1"]
    assert main(["slides", "patches", "in", "--out", "out", *options]) == 3
    assert main(["slides", "embed", "in", "--out", "out", *options, "--model", str(pathology)]) == 3
    (root / "b.tiff").write_bytes(whole + b"\0")
    monkeypatch.chdir("/")
    for stage, folder in zip(stages, ("out/tissue", "out/patches", "out"), strict=True):
        capsys.readouterr()
        assert main(["retry", str(tmp_path / folder), "--reason", "truncated", "--json"]) == 0
        ended = json.loads(capsys.readouterr().out)
        assert (ended["stage"], ended["done"], ended["failed"]) == (stage, 2, 0)
    assert {row.size_px for row in medclip.slides.open_store(tmp_path / "out")} == {128}


def test_of_a_run_that_keeps_no_paths_what_was_scored_is_named(pack: Path, tmp_path: Path) -> None:
    root = _folder(tmp_path / "in")
    (root / "left").mkdir()
    write_png(root / "left" / "9.png", 9)
    asked: dict[str, Any] = {
        "model": pack,
        "modality": "xray",
        "workers": 1,
        "hash_paths": True,
        "prompt": "a fracture",
        "exclude": [root / "left"],
    }
    medclip.score(root, tmp_path / "out", **asked)
    assert str(root).encode() not in (tmp_path / "out" / "ledger.sqlite").read_bytes()
    write_png(root / "empty.png", 8)
    with pytest.raises(MedclipError, match="does not keep what it was asked"):
        medclip.retry(tmp_path / "out", path=root)
    run = medclip.retry(tmp_path / "out", path=root, exclude=[root / "left"], log=tmp_path / "log.jsonl")
    assert (run.counts["scored"], run.counts["failed"]) == (4, 1)
    assert str(root).encode() not in (tmp_path / "out" / "ledger.sqlite").read_bytes()
    assert (tmp_path / "log.jsonl").read_text().count("ended") == 1
    images = sorted(root.glob("*.png"))
    medclip.score(images, tmp_path / "named", model=pack, modality="xray", workers=1)
    write_png(root / "cut.png", 8)
    again = medclip.retry(tmp_path / "named", path=images, dry_run=True)
    assert again.planned is not None
    assert medclip.retry(tmp_path / "named", path=images).counts["failed"] == 0


def test_what_was_asked_comes_back_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    policy = ReadPolicy(uneven_slices="resample", mpp_um=0.5)
    settings = Settings(workers=3, max_pixels=7, policy=policy, home=tmp_path)
    given = {"model": "medclip-mini", "prompt": {"a": ["b", "c"]}, "settings": settings, "out": tmp_path, "limit": 3}
    options = ScoringOptions("in", **given, export=["csv", "sr=results"], progress=Silent())
    asked = what_was_asked(options)
    assert not not_kept(options, asked)
    again = arguments_again(json.loads(json.dumps(asked)))
    expected = {
        "path": os.fspath(tmp_path / "in"),
        "model": "medclip-mini",
        "prompt": {"a": ["b", "c"]},
        "task": [],
        "settings": settings,
        "backend": None,
    }
    assert {name: again[name] for name in expected} == expected
    assert again["export"] == ["csv", f"sr={tmp_path / 'results'}"]
    assert not {"out", "progress", "limit"} & again.keys()
    pixels = replace(settings, policy=ReadPolicy(pixels=PixelPolicy(window=(40.0, 400.0))))
    for lacking, other in (
        ("settings", ScoringOptions("in", settings=pixels)),
        ("path", ScoringOptions(["a.png"])),
        ("query", ScoringOptions("dicomweb://localhost", query="PatientID=1")),
    ):
        assert not_kept(other, what_was_asked(other)) == {lacking}


def test_slides_with_hashed_paths_are_tried_again_by_the_command_once_that_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "in"
    root.mkdir()
    write_pyramid(root / "a.tiff", draw_section(700, 900))
    whole = (root / "a.tiff").read_bytes()
    (root / "b.tiff").write_bytes(whole[:20_000])
    command = ["slides", "tissue", str(root), "--out", str(tmp_path / "o"), "--workers", "1", "--hash-paths"]
    assert main(command) == 3
    (root / "b.tiff").write_bytes(whole + b"\0")
    assert main(["retry", str(tmp_path / "o" / "tissue"), "--reason", "truncated"]) == 2
    assert "its paths are hashed" in capsys.readouterr().err
    assert main(command) == 0
    recipe = json.loads((tmp_path / "o" / "tissue" / "run.json").read_text())["recipe"]
    assert recipe == {"path": "?", "hash_paths": True}
