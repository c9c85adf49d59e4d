"""Forest plots: every row with its words, a shape for each series, round ticks, and nothing outside the plot."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from medclip.reports.forest_plot import SHAPES, Line, Mark, Scale, forest, marker, round_step, tick_text


def test_series_differ_in_shape():
    shapes = {re.sub(r"c\d", "", marker(0, 0, n)) for n in range(len(SHAPES))}
    assert len(shapes) == len(SHAPES)


def test_a_forest_plot_holds_every_group_and_its_words():
    lines = (
        Line("Sex", head=True),
        Line("a & <b>", (Mark(0.8, 0.7, 0.9, "0.80 (0.70 to 0.90)"),)),
        Line("few", (Mark(0.6, None, None, "0.60 (no interval)", hollow=True),)),
        Line("hidden", note="not shown: fewer than 10 positives"),
    )
    drawn = forest(lines, identity="f", title="AUROC <x>", axis="AUROC", reference=0.75)
    assert "a &amp; &lt;b&gt;" in drawn
    assert "0.60 (no interval) †" in drawn
    assert 'class="c0 hollow"' in drawn
    assert "not shown: fewer than 10 positives" in drawn
    assert '<title id="f-t">AUROC &lt;x&gt;</title>' in drawn
    assert drawn.count('class="reference"') == 1
    assert "2 rows with values and intervals, 1 without." in drawn


def test_the_column_of_names_is_as_wide_as_the_longest_needs():
    names = ("CLIP-Adapter (lr 0.01, epochs 20)", "CLIP-Adapter (lr 0.02, epochs 20)", "x" * 60)
    mark = Mark(0.7, 0.6, 0.8, "0.70 (0.60 to 0.80)")
    short, long, longest = (
        forest([Line(name, (mark,)) for name in rows], identity="f", title="t", axis="a")
        for rows in (("female", "male"), names[:2], names)
    )
    assert all(f">{name}</text>" in long for name in names[:2])
    assert f">{'x' * 47}…</text>" in longest
    places = [float(re.findall(r'x="([\d.]+)" y="[\d.]+">0.70', drawn)[0]) for drawn in (short, long, longest)]
    ends = [float(re.findall(r'<circle class="c0 solid" cx="([\d.]+)"', drawn)[0]) for drawn in (short, long, longest)]
    assert places == sorted(set(places))
    assert all(end > place + 190 for place, end in zip(places, ends, strict=True))  # marks stand behind the words
    assert max(ends) < 838


def test_the_name_of_the_axis_stays_inside_the_drawing():
    axis = "Balanced accuracy with 95 % interval; dashed: zero-shot"
    drawn = forest([Line("x" * 48, (Mark(0.7, 0.6, 0.8, "0.7"),))], identity="f", title="t", axis=axis)
    (middle,) = re.findall(rf'x="([\d.]+)" y="[\d.]+" text-anchor="middle">{axis}', drawn)
    assert float(middle) + 6.9 * len(axis) / 2 <= 850


def test_a_forest_plot_of_nothing_is_a_drawing():
    assert forest((), identity="f", title="t", axis="a").startswith("<svg")
    one = forest((Line("x", (Mark(0.7, None, None, "0.70"),)),), identity="f", title="t", axis="a")
    assert "nan" not in one


@given(st.floats(-1e3, 1e3), st.floats(1e-4, 1e3))
def test_ticks_are_few_round_and_inside(low: float, width: float):
    scale = Scale(low, low + width, 0, 100)
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 12
    assert all(low - 1e-6 * width <= t <= low + width + 1e-6 * width for t in ticks)
    assert all(b > a for a, b in pairwise(ticks))
    written = [tick_text(t, round_step(width)) for t in ticks]
    assert len(set(written)) == len(written)


@given(st.floats(-5, 5))
def test_places_stay_within_the_plot(value: float):
    assert 10 <= Scale(0, 1, 10, 50).at(value) <= 50
