"""The page of watched runs: it escapes what it is given, loads nothing, and draws what it says."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

import medclip
from medclip.monitoring.changes import Change
from medclip.reports import monitor as page
from medclip.reports.monitor import Series, findings_of, series_of, write_monitor_report
from tests.kits.watched import write_run

CHANGE = Change(
    "2024-W05", "scores", "chest: mass", "", "mean", 0.2, 0.5, 0.3, 0.2, 0.4, 1.2, 1e-9, 90, 80, 1e-7, "large"
)


def test_a_scanner_or_folder_with_markup_for_a_name_cannot_write_into_the_page(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    watched = medclip.monitor(
        write_run(tmp_path / "<b>june", patients=range(40), seed=1),
        before=write_run(tmp_path / "may", patients=range(40)),
        num_resamples=50,
    )
    changed = replace(CHANGE, about="mix", subject="scanner", name=hostile, measure="share")
    watched = replace(watched, changes=(*watched.changes, changed), notes=(hostile,))
    page = write_monitor_report(replace(watched, findings=findings_of(watched)), tmp_path).read_text()
    assert hostile not in page
    assert "<b>june" not in page
    assert page.count("&lt;script&gt;") >= 3
    HTMLParser().feed(page)


def test_the_page_loads_nothing_and_has_a_drawing_for_each_figure_with_words_beside_it(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"{n}", patients=range(40 * n, 40 * n + 40), seed=n) for n in range(6)]
    out = tmp_path / "out"
    medclip.monitor(folders, out=out, num_resamples=50)
    page = (out / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    images = re.findall(r'<img [^>]*alt="([^"]*)"', page)
    assert len(images) == 9
    assert all(images)


def test_of_one_figure_s_weeks_the_largest_change_is_told_and_in_how_many_weeks_there_was_one() -> None:
    weeks = [
        replace(CHANGE, period=f"2024-W0{n}", effect=n / 4, size=size)
        for n, size in ((1, ""), (2, "clear"), (3, "large"))
    ]
    (series,) = series_of(weeks)
    assert series.worst.period == "2024-W03"
    assert [one.period for one in series.beyond_chance] == ["2024-W02", "2024-W03"]


def test_no_axis_of_a_share_goes_below_0_or_above_1(monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Any] = []
    monkeypatch.setattr(page, "themed_svg", lambda size, draw: figures.append(draw) or "")
    low = replace(CHANGE, measure="share", reference=0.01, value=0.0, low=-0.04, high=0.02)
    high = replace(CHANGE, measure="share", reference=0.98, value=1.0, low=-0.01, high=0.05)
    far = replace(CHANGE, about="distance", measure="mean", reference=0.9, value=1.4, low=0.3, high=0.7)
    limits = []
    for one in (low, high, far):
        page.draw_series(Series((one,)))
        figure = Figure()
        figures.pop()(figure)
        (axes,) = figure.axes
        drawn = [value for line in axes.lines for value in np.asarray(line.get_ydata()).tolist()]
        limits.append((*axes.get_ylim(), min(drawn), max(drawn)))
    assert limits[0][0] == limits[0][2] == 0.0
    assert limits[1][1] == limits[1][3] == 1.0
    assert limits[2][1] > limits[2][3] == pytest.approx(1.6)
