"""Alarms in words and drawings: scanner, week and figure come first, and there is one rate of false alarms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import medclip
from medclip.monitoring.alarms import Alarm, Alarms
from medclip.reports.monitor_alarms import events_of, sentence_of, watched_in_words
from tests.kits.watched import write_run

ALARM = Alarm(
    event=1,
    fact="scanner",
    stratum="GE (aa0001)",
    about="scores",
    subject="chest: mass",
    measure="mean probability",
    period="2024-W22",
    since="2024-W20",
    until="",
    before=0.2,
    after=0.5,
    difference=0.3,
    low=0.2,
    high=0.4,
    statistic=6.0,
    limit=4.0,
    num_patients_before=200,
    num_patients_after=60,
)


def test_a_sentence_has_scanner_week_figure_before_and_after_and_what_moved_with_it() -> None:
    size, text = sentence_of((ALARM, replace(ALARM, fact="view", stratum="PA")))
    assert size == "alarm"
    assert text.startswith(
        "Scanner “GE (aa0001)”, since 2024-W20: mean probability of chest: mass 0.20 before and 0.50"
    )
    assert "+0.20 to +0.40" in text
    assert "1 chart moved with it: charts of view “PA”" in text


def test_an_alarm_that_is_over_says_when_and_comes_after_those_that_stand() -> None:
    over = replace(ALARM, event=2, until="2024-W30", about="files", subject="not scored")
    first, second = events_of((over, ALARM))
    assert [event[0].event for event in (first, second)] == [1, 2]
    size, text = sentence_of(second)
    assert size == "over"
    assert text.endswith("As before again by 2024-W30.")
    assert "20 % before and 50 % after" in text


def test_what_is_watched_has_the_one_rate() -> None:
    watch = Alarms((), (), 42, (("scanner", 3), ("view", 2)), 1.0, 52)
    assert watched_in_words(watch, "week").startswith("42 charts over 52 weeks: of everything and of 3 scanners and 2")
    assert watched_in_words(watch, "week").endswith("all of them together give about one false alarm a year.")
    assert "0.5 false alarms a year" in watched_in_words(replace(watch, rate=0.5), "week")


def test_the_page_leads_with_the_alarm_and_its_chart(tmp_path: Path) -> None:
    weeks = [f"2024-W{number:02}" for number in range(1, 9)]
    folders = [
        write_run(tmp_path / week, patients=range(60 * n, 60 * n + 60), week=week, shift=1.5 * (n == 7))
        for n, week in enumerate(weeks)
    ]
    medclip.monitor(folders, out=tmp_path / "out", num_resamples=100, false_alarms_a_year=0.5)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.index("Everything, since 2024-W08") < page.index("What else differs</h2>")
    assert "about 0.5 false alarms a year" in page
    assert 'alt="Everything, since 2024-W08' in page
