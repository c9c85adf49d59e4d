"""Histograms of probabilities: counts that are right, drawn for eyes and written for ears."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medclip.models.packs.card import Card
from medclip.reports.model_card import view_card
from medclip.reports.score.page import HistogramData, collect, collect_histograms, histogram, studies_of
from medclip.reports.score.report import render
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.rows import FileRow, Ranking
from medclip.text.vocabulary.load import load_task
from tests.kits.ledger import fill_ledger
from tests.kits.score_report import EVIL, Page, score_row

TASK = "chest_xray_findings"


def _card(**task: Any) -> Any:
    return view_card(Card.model_validate({"name": "n", "tasks": {TASK: {"classes": ["pneumonia"], **task}}}))


def _fill(ledger: Ledger, probabilities: list[float], names: tuple[str, ...] = ("pneumonia",)) -> None:
    keys = [f"s{n}" for n in range(len(probabilities))]
    files = [
        FileRow(n, f"{n:04}.png", None, 9, "png", "scored", None, None, key, "xray", "header", grouping="file")
        for n, key in enumerate(keys, start=1)
    ]
    pairs = zip(keys, probabilities, strict=True)
    fill_ledger(ledger, files, [score_row(key, name, p, "multilabel", TASK) for key, p in pairs for name in names])


def test_every_study_is_in_one_bin_and_those_at_the_threshold_of_the_card_are_counted(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        _fill(ledger, [0.0, 0.04, 0.05, 0.5, 0.62, 0.999, 1.0])
        card = _card(thresholds={"pneumonia": {"value": 0.62, "chosen_on": "site A"}})
        (chosen,), more = collect_histograms(ledger, (), {}, card, Ranking(TASK, ("pneumonia",)))
    assert (chosen.counts[0], chosen.counts[1], chosen.counts[10], chosen.counts[12], chosen.counts[19]) == (
        2,
        1,
        1,
        1,
        2,
    )
    assert (chosen.num_studies, chosen.threshold, chosen.num_called, more) == (7, 0.62, 3, 0)


def test_without_a_choice_classes_with_studies_enough_are_drawn_small_in_the_order_of_the_vocabulary(
    tmp_path: Path,
) -> None:
    names = tuple(c.name for c in load_task(TASK).classes)
    with Ledger(tmp_path) as ledger:
        _fill(ledger, [0.01] * 19, names)
        assert collect_histograms(ledger, (TASK,), {TASK: load_task(TASK)}, _card(), None) == ((), 0)
    (tmp_path / "more").mkdir()
    with Ledger(tmp_path / "more") as ledger:
        _fill(ledger, [0.07] * 20, names[::-1])
        drawn, more = collect_histograms(ledger, (TASK,), {TASK: load_task(TASK)}, _card(), None)
    assert [h.title for h in drawn] == [c.title for c in load_task(TASK).classes[:12]]
    assert more == len(names) - len(drawn)
    assert drawn[0].counts == (20, *[0] * 9)
    assert drawn[0].bins[0] == "0–10 %"


def test_the_report_has_the_numbers_as_a_table_and_says_how_many_reach_the_threshold(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        _fill(ledger, [0.1, 0.7, 0.9])
        card = _card(thresholds={"pneumonia": 0.62})
        report = collect(ledger, card, show_paths=False, sort_by=Ranking(TASK, ("pneumonia",)))
        page = Page(render(report, card, tuple(studies_of(ledger, card, report, 1))))
    text = " ".join(page.text.split())
    assert "2 of 3 studies have the card’s threshold of 0.62 or more (dashed line)." in text
    assert "The same in numbers" in text
    drawn = next(a for n, a in page.tags if a.get("class") == "histogram")
    assert drawn["role"] == "img"
    assert {a.get("id") for _, a in page.tags} >= set(drawn["aria-labelledby"].split())


@pytest.mark.parametrize(
    ("cautions", "grey"),
    [
        ((None, None), ""),
        (("within its source only (a)", None), "within its source only (a)"),
        (
            ("within its source only (a)", "Not learned: the model was trained on MRI images, not on X-ray"),
            "not learned",
        ),
    ],
)
def test_a_small_histogram_is_grey_where_rows_of_its_class_are_and_the_card_says_nothing_of_it(
    tmp_path: Path, cautions: tuple[str | None, ...], grey: str
) -> None:
    only = {"verdict": "within its source only", "sources": ["b"]}
    card = _card(sources={"pneumonia": only})
    keys = [f"s{n}" for n in range(20)]
    files = [
        FileRow(n, f"{n:04}.png", None, 9, "png", "scored", None, None, key, "xray", "header", grouping="file")
        for n, key in enumerate(keys, start=1)
    ]
    rows = [
        replace(score_row(key, "pneumonia", 0.2, "multilabel", TASK), caution=cautions[n % 2])
        for n, key in enumerate(keys)
    ]
    with Ledger(tmp_path) as ledger:
        fill_ledger(ledger, files, rows)
        report = collect(ledger, card, show_paths=False)
        page = render(report, card, tuple(studies_of(ledger, card, report, 1)))
    assert report.grey((TASK, "pneumonia")) == grey
    (drawn,) = re.findall(r"<figure[^>]*><figcaption>.*?</figcaption>", page.split('<div class="small-multiples">')[1])
    assert drawn.startswith('<figure class="unlearned">') is bool(grey)
    assert (f"; {grey}" in drawn) is bool(grey)


@pytest.mark.parametrize("small", [True, False])
def test_a_single_study_beside_a_million_can_be_seen_and_read(small: bool) -> None:
    data = HistogramData("h", (TASK, "pneumonia"), "task", EVIL, (1_000_000, *[0] * 18, 1), None, 0)
    drawn = str(histogram(data, small=small))
    heights = [float(height) for height in re.findall(r'class="fill".*? height="([0-9.]+)"', drawn)]
    assert len(heights) == 2
    assert min(heights) >= 1.5
    assert "1,000,000" in drawn
    assert "95–100 % 1." in drawn
    assert "<img" not in drawn
