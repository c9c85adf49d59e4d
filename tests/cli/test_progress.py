"""Progress: a plain line now and then, two bars on a terminal; both know how long it will take."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest

from medclip.cli import progress as module
from medclip.cli.progress import BarProgress, PlainProgress


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines_are_few_and_the_last_step_has_one() -> None:
    out = io.StringIO()
    shown = PlainProgress(out)
    shown.stage("Reading", 1000)
    for _ in range(1000):
        shown.step()
    lines = out.getvalue().splitlines()
    assert lines[0] == "Reading: 1,000"
    assert lines[-1] == "Reading: 1,000 of 1,000"
    assert len(lines) < 20


@pytest.mark.parametrize("kind", [PlainProgress, BarProgress])
def test_a_note_drives_no_terminal_whatever_a_card_or_a_prompt_holds(kind: type[PlainProgress | BarProgress]) -> None:
    out = _Terminal()
    shown = kind(out)
    shown.note("a\x1b]0;owned\x07 [red]b")
    assert "a\\x1b]0;owned\\x07 [red]b" in out.getvalue()
    assert "\x1b]0" not in out.getvalue()


def test_a_plain_line_has_the_remaining_time_and_what_stands_beside(clock: list[float]) -> None:
    out = io.StringIO()
    shown = PlainProgress(out)
    shown.stage("Training", 100)
    clock[0] += 60
    shown.step(20, "loss 2.3")
    assert out.getvalue().splitlines()[-1] == "Training: 20 of 100, about 4 min left; loss 2.3"


def test_steps_of_a_run_before_do_not_count_for_the_remaining_time(clock: list[float]) -> None:
    out = io.StringIO()
    shown = PlainProgress(out)
    shown.stage("Training", 100, done=80)
    clock[0] += 60
    shown.step(10)
    assert out.getvalue().splitlines() == [
        "Training: 100 (80 of them done already)",
        "Training: 90 of 100, about 60 s left",
    ]
    shown.stage("Writing results for other systems", 7, done=7)
    assert out.getvalue().splitlines()[-1] == "Writing results for other systems: 7 (all of them done already)"


def test_lines_of_a_run_of_days_come_once_a_minute(clock: list[float]) -> None:
    out = io.StringIO()
    shown = PlainProgress(out)
    shown.stage("Training", 10**6)
    times = []
    for _ in range(8000):  # one a second, more than two hours
        clock[0] += 1
        before = len(out.getvalue())
        shown.step(1)
        if len(out.getvalue()) > before:
            times.append(clock[0] - 100)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[0] == 10
    assert max(gaps) == gaps[-1] == 60
    assert gaps == sorted(gaps)


def test_a_narrow_terminal_has_room_for_counts_remaining_time_and_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "72")
    text = "loss 2.314, lr 0.000123, 1,143 images/s, < 1 % waiting for data"
    out = _Terminal()
    with BarProgress(out) as shown:
        shown.stage("Training", 100_000, done=2_000)
        shown.step(300, text)
    assert "2300/100000" in out.getvalue()
    assert "left" in out.getvalue()
    assert text in out.getvalue()


def test_bars_on_a_terminal_show_steps_text_and_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = _Terminal()
    with BarProgress(out) as shown:
        shown.stage("Training", 10, done=2)
        shown.step(1, "loss 2.3")
        shown.note("Validation after step 3: val loss [0.5]")
    assert "3/10" in out.getvalue()
    assert "loss 2.3" in out.getvalue()
    assert "val loss [0.5]" in out.getvalue()


def test_a_stage_whose_files_grow_never_counts_beyond_its_total(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    plain, terminal = io.StringIO(), _Terminal()
    with BarProgress(terminal) as bars:
        for shown in (PlainProgress(plain), bars):
            shown.stage("Reading and scoring", 733)
            shown.overall(700, 733, 90)
            shown.step(700)
            shown.overall(700, 798, 90)
            shown.step(98)
            shown.overall(798, 798, 90)
    assert plain.getvalue().splitlines()[-1] == "Reading and scoring: 798 of 798"
    assert "798/798" in terminal.getvalue()
    assert "/733" not in terminal.getvalue().splitlines()[-1]
