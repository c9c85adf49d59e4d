"""The page of a few-shot comparison: complete, honest about doubt, self-contained, and silent about patients."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest

from medclip.evaluation.few_shot.compare import Compared
from medclip.evaluation.few_shot.comparison import Comparison, Novel, Paired
from medclip.reports.drawings import _apart, curves
from medclip.reports.few_shot import highlighted, interval_of, render, summary, value_of, write_compare_report
from medclip.wording import p_value
from tests.kits.few_shot import compare_methods, table
from tests.kits.pages import lines_of, run_together
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
def one_k(compared: Compared) -> Compared:
    """The same comparison, asked for K = 2 alone: its mean over K is the figure at that K."""
    result = compared.result
    cells = tuple(c for c in result.cells if c.shots == 2)
    differences = tuple(d for d in result.differences if d.shots == 2)
    costs = tuple(c for c in result.costs if c.shots in (0, 2))
    return replace(
        compared,
        result=replace(
            result,
            shots=(2,),
            averaged=(2,),
            cells=(*cells, *(replace(c, shots=None) for c in cells)),
            differences=(*differences, *(replace(d, shots=None) for d in differences)),
            costs=costs,
        ),
    )


@pytest.fixture(scope="module")
def page(compared: Compared) -> str:
    return render(compared)


def difference(**values: Any) -> Paired:
    plain: dict[str, Any] = {
        "method": "ridge",
        "reference": "zero-shot",
        "shots": None,
        "metric": "balanced_accuracy",
        "value": 0.1,
        "low": 0.02,
        "high": 0.2,
        "p": 0.01,
        "p_holm": 0.02,
        "family": 4,
    }
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
    assert re.search(r"<figcaption><strong>\w+</strong>, predicted \w+<small>row \d+", page)


def test_a_file_that_is_gone_is_not_shown(compared: Compared, monkeypatch: pytest.MonkeyPatch):
    from medclip.reports import few_shot as module

    monkeypatch.setattr(module, "_burned_in", lambda *_: True)
    shown = render(compared)
    assert "Image withheld" in shown
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
    alike = said(compared.result, difference(method=best, value=0.0, low=None, high=None, p=1.0, p_holm=1.0))
    assert "+0.000 in every resample, so without an interval." in alike
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
    assert "No method gave predictions" in next(summary(empty))


def test_few_methods_stand_out_and_the_references_are_among_them(compared: Compared):
    chosen = highlighted(compared.result)
    assert len(chosen) == 4
    assert compared.result.ranked[0] in chosen
    assert "zero-shot" in chosen


def test_the_same_figures_draw_the_same_curves(compared: Compared):
    chosen = highlighted(compared.result)
    assert curves(compared.result, chosen) == curves(compared.result, chosen)


def drawing(page: str) -> str:
    return page[page.index('<svg class="forest"') : page.index("</svg>")]


def test_one_k_is_a_forest_plot_of_all_methods_best_first(one_k: Compared):
    shown = render(one_k)
    assert 'class="curves"' not in shown
    svg = drawing(shown)
    result = one_k.result
    places = [svg.index(f">{result.titles[method]}</text>") for method in result.ranked]
    assert places == sorted(places)
    values = [cell.value for method in result.ranked if (cell := result.cell(method, 2))]
    assert values == sorted(values, reverse=True)
    assert len(values) == svg.count('class="c0 solid"') == len(result.titles)
    for method in result.ranked:
        cell = result.cell(method, 2)
        assert cell is not None
        assert f">{value_of(cell.value)} ({interval_of(cell)})</text>" in svg
    assert "Balanced accuracy at K = 2" in svg


def test_zero_shot_is_the_dashed_line_through_its_own_mark(one_k: Compared):
    svg = drawing(render(one_k))
    (line,) = re.findall(r'<line class="reference" x1="([\d.]+)"', svg)
    row = svg[svg.index(">Zero-shot</text>") :]
    assert re.findall(r'<circle class="c0 solid" cx="([\d.]+)"', row)[0] == line
    assert "dashed: zero-shot" in svg
    without = tuple(c for c in one_k.result.cells if c.method != "zero-shot")
    other = drawing(render(replace(one_k, result=replace(one_k.result, cells=without))))
    assert "reference" not in other
    assert "dashed" not in other


def test_a_method_that_failed_keeps_a_row_of_the_forest_plot(one_k: Compared):
    without = tuple(c for c in one_k.result.cells if c.method != "knn")
    svg = drawing(render(replace(one_k, result=replace(one_k.result, cells=without))))
    assert svg.rindex(">Nearest neighbours</text>") < svg.index(">failed</text>")
    assert "4 rows with values and intervals, 1 without." in svg


def test_the_forest_plot_has_colours_by_night_and_on_paper(one_k: Compared):
    shown = render(one_k)
    used = set(re.findall(r'class="(?:c0 solid|whisker w0|reference|grid-line|t soft-t)"', shown))
    assert len(used) == 5
    style = shown[shown.index("<style>") : shown.index("</style>")]
    for css in (".c0.solid", ".w0", ".reference", ".grid-line", ".soft-t", ".forest"):
        assert css in style
    assert not re.search(r'(?:fill|stroke)="', drawing(shown))  # colours are classes, which dark mode and print set


def test_words_and_tables_of_one_k_speak_of_no_mean(one_k: Compared, page: str):
    shown = render(one_k)
    text = "\n".join(lines_of(shown))
    heads = re.findall(r'<th scope="col">((?:K|Mean)[^<]*)</th>', shown)
    assert set(heads) == {"K = 2"}
    assert "bars are 95 % intervals over draws and test patients." in text
    assert not re.search("bands|logarithmic|mean over K|several K", text)
    assert "At K = 2," in text
    assert not run_together(shown)
    assert "Mean, K ≥ 1" in page
    assert "bands are 95 % intervals" in page


def test_p_of_one_k_is_that_of_its_differences(one_k: Compared):
    difference = next(d for d in one_k.result.differences_of("zero-shot", 2) if d.method == "knn")
    shown = render(one_k)
    rows = shown[shown.index('<section id="differences">') :]
    row = rows[rows.index('<th scope="row">Nearest neighbours</th>') :]
    cells = re.findall(r"<td>([^<]*)", row[: row.index("</tr>")])
    assert cells == [value_of(difference.value, signed=True), p_value(difference.p), p_value(difference.p_holm)]


def test_a_mean_over_the_only_k_from_4_on_has_no_column(one_k: Compared):
    result = replace(one_k.result, shots=(1, 2))
    assert result.columns == (1, 2)
    heads = set(re.findall(r'<th scope="col">((?:K|Mean)[^<]*)</th>', render(replace(one_k, result=result))))
    assert heads == {"K = 1", "K = 2"}
    assert replace(result, averaged=(1, 2)).columns == (1, 2, None)


def test_the_terminal_shows_each_column_once(one_k: Compared, compared: Compared):
    assert next(islice(one_k.result.lines(), 1, None)).split() == ["K=2"]
    assert next(islice(compared.result.lines(), 1, None)).split() == ["K=1", "K=2", "mean", "K=1+"]


def test_labels_are_pushed_apart_in_order_and_stay_inside():
    places = _apart([0.5, 0.5, 0.51, 0.99, 1.0])
    assert places == sorted(places)
    assert min(b - a for a, b in pairwise(places)) >= 0.0359
    assert places[-1] <= 1.0
