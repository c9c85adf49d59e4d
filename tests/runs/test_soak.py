"""The benchmarks of long nights, small: rows are counted, runs are killed, and nothing is read twice.

The first two run at night. In CI `test_kills.py` kills runs and reading processes, and `test_nights.py` sees that
nothing is read twice; each way of being broken has its tests in `tests/files`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def _run(repository: Path, script: str, *options: object) -> str:
    done = subprocess.run(
        [sys.executable, str(repository / "benchmarks" / script), *map(str, options)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(repository)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.nightly
def test_a_folder_with_files_that_are_broken_in_twelve_ways_adds_up(
    repository: Path, pack: Path, tmp_path: Path
) -> None:
    text = _run(repository, "soak.py", 1200, "--folder", tmp_path, "--model", pack)
    for reason in (
        "empty_file",
        "truncated",
        "corrupt",
        "missing_file",
        "no_pixels",
        "not_a_file",
        "not_supported_yet",
    ):
        assert f" {reason}" in text
    assert "first rows readable after" in text
    assert "0 files read" in text


@pytest.mark.nightly
def test_runs_and_reading_processes_that_are_killed_end_in_the_same_bytes(
    repository: Path, pack: Path, tmp_path: Path
) -> None:
    text = _run(repository, "chaos.py", "--files", 200, "--kills", 6, "--folder", tmp_path, "--model", pack)
    assert "all in the same bytes" in text


@pytest.mark.slow
def test_many_names_take_no_memory(repository: Path, tmp_path: Path) -> None:
    assert "files a second" in _run(repository, "million_files.py", "--files", 20_000, "--folder", tmp_path)
