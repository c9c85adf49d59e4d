"""Where the time of a run goes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from medclip.runs.operations.work_seconds import KINDS, TimedThreads, WorkReport, WorkSeconds


class Clock:
    """Seconds that a test moves on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_shares_add_up_to_one_and_count_what_others_counted():
    clock = Clock()
    work = WorkSeconds(clock)
    work.begin()
    work.places |= {"read": 2, "decode": 2}
    with work.at("write"):
        clock.now = 1.0
    work.add("model", 3.0)
    clock.now = 10.0
    report = work.report({"read": 2.0, "decode": 4.0})
    assert report.wall_s == 10.0
    assert report.shares == pytest.approx({"read": 0.2, "decode": 0.4, "model": 0.3, "write": 0.1})
    assert report.busy("read", "decode") == pytest.approx(6 / 20)
    assert report.sentence() == (
        "Work: read 20 %, decode 40 %, model 30 % and write 10 %, in 10 s. "
        "Reading processes were busy for 30 % of it, the model for 30 %."
    )
    assert report.to_json()["decode"] == {"seconds": 4.0, "share": 0.4, "places": 2}


def test_a_run_that_did_nothing_has_shares_of_zero():
    report = WorkSeconds().report()
    assert report.shares == dict.fromkeys(KINDS, 0.0)
    assert report.busy("model") == 0.0


def test_work_that_raises_is_counted_too():
    clock = Clock()
    work = WorkSeconds(clock)

    def fail() -> None:
        clock.now += 2.0
        raise ValueError

    with ThreadPoolExecutor(1) as threads:
        future = TimedThreads(threads, work, "model").submit(fail)
        with pytest.raises(ValueError):  # noqa: PT011 - ours
            future.result()
    assert work.report().seconds["model"] == 2.0


def test_nobody_is_busy_for_more_than_the_time_there_was():
    seconds = {"read": 0.0, "decode": 0.0, "model": 3.0, "write": 0.0}
    assert WorkReport(2.0, seconds, dict.fromkeys(KINDS, 1)).busy("model") == 1.0
    assert WorkReport(2.0, seconds, dict.fromkeys(KINDS, 2)).busy("model") == 0.75
