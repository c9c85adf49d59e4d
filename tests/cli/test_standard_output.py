"""Standard output that is full or whose reader went away: one sentence or none, and never a fault of ours."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from medclip.cli import main as cli
from medclip.exit_codes import ExitCode

STUDIES = Path(__file__).parents[2] / "examples" / "studies"
COMMANDS = (
    ["scan", str(STUDIES)],
    ["scan", str(STUDIES), "--json"],
    ["models", "list"],
    ["models", "show"],
    ["--version"],
    ["--help"],
    ["models"],
    ["view", "--help"],
)


class Failing(io.StringIO):
    """A stream that cannot be written."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_full_standard_output_is_one_sentence_and_incomplete(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Failing(errno.ENOSPC))
    assert cli.main(words) == ExitCode.INCOMPLETE
    shown = capsys.readouterr().err.splitlines()
    assert shown[-1].startswith("medclip: standard output: this cannot be written: the disk is full.")
    assert not any("bug" in line or "Traceback" in line for line in shown)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_reader_that_went_away_is_not_mentioned(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Failing(errno.EPIPE))
    assert cli.main(words) == ExitCode.PIPE_CLOSED
    assert "medclip:" not in capsys.readouterr().err


def test_no_standard_output_at_all_is_no_fault(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main(["models", "list"]) == ExitCode.COMPLETE
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS[:5], ids=" ".join)
def test_nothing_is_left_for_the_end_of_the_interpreter(words):
    command = [sys.executable, "-m", "medclip.cli.main", *words]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr.count("medclip: standard output")) == (4, 1)
    assert "Exception ignored" not in done.stderr
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    os.close(write)
    assert done.returncode == 141
    assert "Exception ignored" not in done.stderr
    assert "medclip:" not in done.stderr
