"""Damaged files of every format: each ends in exactly one row, no process dies, memory stays under the ceiling."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medclip.files.recognise.inspect import inspect_file
from medclip.settings import Settings
from tests.fuzz.mutate import Seed, mutate, seeds
from tests.kits.size import sized

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[Seed]:
    return seeds(tmp_path_factory.mktemp("seeds"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutated")


@settings(max_examples=150)
@given(data=st.data())
def test_inspection_never_raises(originals: list[Seed], place: Path, data: st.DataObject) -> None:
    name, body, *_ = data.draw(st.sampled_from(originals))
    path = place / name
    path.write_bytes(mutate(body, np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))))
    facts = inspect_file(path, Settings())
    assert facts.problem is None or facts.problem.message


@pytest.mark.slow
def test_each_of_many_damaged_files_ends_in_a_row() -> None:
    number = sized(500)
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", "--files", f"{number}", "--minutes", "10", "--seed", "7"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["files"] == number
    assert found["cut_streams"] > 0
    assert sum(found["rows"].values()) >= number  # and a row for each whole neighbour
