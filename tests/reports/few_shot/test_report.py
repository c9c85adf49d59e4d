"""The page of a few-shot comparison: complete, honest about doubt, self-contained, and silent about patients."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from medclip.evaluation.few_shot.compare import Compared, compare_methods
from medclip.evaluation.few_shot.results import Comparison, Novel, Paired
from medclip.reports.few_shot.curves import _apart, curves
from medclip.reports.few_shot.page import highlighted
from medclip.reports.few_shot.report import render, write_compare_report
from medclip.reports.few_shot.words import summary, value_of
from tests.kits.few_shot import table
from tests.kits.pages import run_together
from tests.kits.scoring import make_pack


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    folder = tmp_path_factory.mktemp("page")
    pack, labels = make_pack(folder / "tiny"), table(folder / "data", contrast=8)
    methods = ["zero-shot", "ridge", "knn", "lda", "tip"]
    return compare_methods(
        pack, labels, "shape", out=folder / "out", methods=methods, shots=(1, 2), seeds=2, num_replicates=200
    )


@pytest.fixture(scope="module")
def page(compared: Compared) -> str:
    return render(compared)


def difference(**values: Any) -> Paired:
    plain: dict[str, Any] = {
        "method": "ridge", "reference": "zero-shot", "shots": None, "metric": "balanced_accuracy",
        "value": 0.1, "low": 0.02, "high": 0.2, "p": 0.01, "p_holm": 0.02, "family": 4,
    }  # fmt: skip
    return Paired(**(plain | values))


def said(result: Comparison, *differences: Paired) -> str:
    best = replace(result, differences=differences)
    return " ".join(summary(best))


def test_it_loads_and_runs_nothing(page: str):
    assert "<script" not in page
    assert "default-src 'none'" in unescape(page)
    assert not re.findall(r"(?:src|href)=\"(?!#|data:)", page)
    assert " style=" not in page


def test_it_names_neither_files_nor_patients_unless_asked(compared: Compared, page: str):
    assert "SECRET" not in page
    assert "MRN-" not in page
    assert "SECRET" in render(compared, show_paths=True)
    assert "MRN-" not in render(compared, show_paths=True)


def test_no_two_sentences_run_together(compared: Compared, page: str):
    assert not run_together(page)
    assert not run_together(render(compared, show_paths=True))


def test_the_same_results_give_the_same_bytes(compared: Compared, page: str, tmp_path: Path):
    assert write_compare_report(compared, tmp_path).read_text() == page


def test_it_has_every_part(page: str):
    for part in ("found", "figures", "differences", "mistakes", "cost", "spread", "data", "methods"):
        assert f'<section id="{part}">' in page
    for words in ("Not a medical device", "pigeonhole", "Holm", "Confusion matrix of", "data:image/svg+xml", "Ridge"):
        assert words in page


def test_every_method_and_every_interval_is_in_the_table(compared: Compared, page: str):
    for cell in compared.result.cells:
        assert f">{value_of(cell.value)}</span>" in page
    for title in compared.result.titles.values():
        assert f'<th scope="row">{title}</th>' in page


def test_mistakes_are_shown_with_the_true_class_and_what_was_said(page: str):
    assert re.search(r"<figcaption><strong>\w+</strong>, said \w+<small>row \d+", page)


def test_a_file_that_is_gone_is_not_shown(compared: Compared, monkeypatch: pytest.MonkeyPatch):
    from medclip.reports.few_shot import report as module

    monkeypatch.setattr(module, "_burned_in", lambda *_: True)
    shown = render(compared)
    assert "Picture withheld" in shown
    assert "data:image/jpeg" not in shown


def test_the_summary_says_when_an_interval_includes_zero(compared: Compared):
    best = compared.result.ranked[0]
    doubt = said(compared.result, difference(method=best, low=-0.01))
    assert "includes zero" in doubt
    assert "cannot say which is better" in doubt
    adjusted = said(compared.result, difference(method=best, p_holm=0.4))
    assert "not after adjusting" in adjusted
    clear = said(compared.result, difference(method=best), difference(method="knn"))
    assert "includes zero" not in clear
    assert "2 of 2 methods are above" in clear


def test_a_difference_of_too_few_patients_is_said_and_is_sure_of_nothing(compared: Compared):
    best = compared.result.ranked[0]
    unknown = difference(method=best, value=0.5, low=None, high=None, p=None, p_holm=None)
    text = said(compared.result, unknown, difference(method="knn", value=0.0, low=-0.1, high=0.1, p=1.0, p_holm=1.0))
    assert "+0.500, of too few test patients for an interval." in text
    assert "none of 2 methods surely differs" in text


def test_both_harmonic_means_are_on_the_page_by_name(compared: Compared):
    parts = [{"value": v, "low": v - 0.01, "high": v + 0.01} for v in (0.911, 0.722, 0.633, 0.544)]
    novel = Novel("ridge", "balanced_accuracy", 16, *parts)
    shown = render(replace(compared, result=replace(compared.result, novel=(novel,), novel_classes=("spot",))))
    section = shown[shown.index('<section id="novel">') : shown.index('<section id="mistakes">')]
    heads = re.findall(r'<th scope="col">([^<]*)</th>', section)
    figures = re.findall(r"<span[^>]*>([^<]*)</span><small>([^<]*)</small>", section)
    assert heads == ["Method", "Base", "Novel", "hm_of_means", "mean_of_hms"]
    assert [value for value, _ in figures] == ["0.911", "0.722", "0.633", "0.544"]
    assert figures[2][1] == "0.623 to 0.643"


def test_the_summary_says_what_one_draw_cannot_tell_and_what_the_base_has_seen(compared: Compared):
    text = " ".join(summary(replace(compared.result, seeds=(1,), num_in_training=3)))
    assert "over test patients only" in text
    assert "trained on 3 of" in text


def test_a_comparison_in_which_all_fail_says_so(compared: Compared):
    empty = replace(compared.result, cells=(), differences=())
    assert "No method gave predictions" in summary(empty)[0]


def test_few_methods_stand_out_and_the_references_are_among_them(compared: Compared):
    chosen = highlighted(compared.result)
    assert len(chosen) == 4
    assert compared.result.ranked[0] in chosen
    assert "zero-shot" in chosen


def test_the_same_figures_draw_the_same_curves(compared: Compared):
    chosen = highlighted(compared.result)
    assert curves(compared.result, chosen) == curves(compared.result, chosen)


def test_labels_are_pushed_apart_in_order_and_stay_inside():
    places = _apart([0.5, 0.5, 0.51, 0.99, 1.0])
    assert places == sorted(places)
    assert min(b - a for a, b in pairwise(places)) >= 0.0359
    assert places[-1] <= 1.0
