"""The log is one JSON object a line, and people see a bar on a terminal and plain lines elsewhere."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from medclip.training.log import RunLog, cut_log, read_log

STEP = {"step": 3, "loss": 1.23456789, "images_s": 10.0}


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_where_there_is_no_terminal(tmp_path: Path) -> None:
    out = io.StringIO()
    log = RunLog(tmp_path, 10, 0, out=out)
    log.write("step", STEP)
    log.close()
    assert out.getvalue() == "step  step 3  loss 1.23457  images_s 10.0\n"
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {
        "kind": "step",
        "step": 3,
        "loss": 1.23457,
        "images_s": 10,
    }


def test_a_bar_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = _Terminal()
    log = RunLog(tmp_path, 10, 0, out=out)
    log.write("step", STEP)
    log.write("val", {"step": 3, "val_loss": 0.5})
    log.close()
    assert "3/10" in out.getvalue()
    assert "val_loss 0.5" in out.getvalue()


def test_nothing_is_shown_where_nothing_is_asked_for(tmp_path: Path) -> None:
    out = io.StringIO()
    log = RunLog(tmp_path, 10, 0, show=False, out=out)
    log.write("step", STEP)
    log.close()
    assert out.getvalue() == ""


def test_cutting_drops_later_steps_and_a_broken_last_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps({"kind": "step", "step": s}) + "\n" for s in (1, 2, 3, 4)) + '{"kind')
    cut_log(path, 2)
    assert [e["step"] for e in read_log(path)] == [1, 2]
    cut_log(tmp_path / "new.jsonl", 0)
    assert read_log(tmp_path / "new.jsonl") == []
