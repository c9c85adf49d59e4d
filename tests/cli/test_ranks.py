"""`medclip finetune` as a user starts it with torchrun: the first rank builds the shards, both train, one speaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import medclip
from medclip.settings import Settings
from medclip.training.result import read_log
from tests.kits.finetuning import FAST, KEY, TOWER, labelled_films
from tests.kits.loaded_python import Programs

# Each test starts two ranks.
pytestmark = pytest.mark.slow

PLAIN = {**FAST, "model.drop_path": 0, "train.epochs": 1}


def _two_ranks(python: str, films: Path, out: Path, *more: str, **overrides: int) -> subprocess.CompletedProcess[str]:
    settings = [part for key, value in (PLAIN | overrides).items() for part in ("--set", f"{key}={value}")]
    command = [
        "-m",
        "medclip.cli.main",
        "finetune",
        "--model",
        TOWER,
        "--labels",
        str(films),
        "--label",
        "kind",
        "--patient",
        "person",
        "--out",
        str(out),
        "--key-file",
        str(films.parent / KEY),
        *settings,
        *more,
    ]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python", python]
    return subprocess.run(
        [python, *launcher, *command],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def _losses(out: Path) -> list[float]:
    return [entry["loss"] for entry in read_log(out / "log.jsonl") if entry["kind"] == "step"]


def test_two_ranks_build_once_and_learn_what_one_process_learns(tmp_path: Path) -> None:
    films = labelled_films(tmp_path / "films")
    done = _two_ranks(sys.executable, films, tmp_path / "two", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    values = json.loads(done.stdout)  # one rank speaks
    alone = medclip.finetune(
        films,
        "kind",
        model=TOWER,
        out=tmp_path / "one",
        patient="person",
        overrides=PLAIN,
        key_file=films.parent / KEY,
        settings=Settings(workers=1),
    )
    assert values["images"] == alone.images
    assert _losses(tmp_path / "two") == pytest.approx(_losses(tmp_path / "one"), rel=1e-4)
    assert [row["metric"] for row in values["test"]] == [row["metric"] for row in alone.test]
    assert Path(values["report"]).is_file()


def test_what_the_first_rank_cannot_build_ends_all_with_one_sentence(programs: Programs, tmp_path: Path) -> None:
    films = labelled_films(tmp_path / "films")
    done = _two_ranks(programs.python, films, tmp_path / "two", **{"model.size_px": 50})
    assert done.returncode != 0
    assert done.stderr.count("no multiple of its patches") == 1
    assert not (tmp_path / "two" / "shards").exists()
