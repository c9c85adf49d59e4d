"""The page of an audit: complete, self-contained, escaped, accessible, and silent about patients."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import fields, replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from medclip.auditing.checks.shortcuts.reweighting import BEFORE
from medclip.auditing.checks.shortcuts.sources import RED
from medclip.auditing.result import COLUMNS, AuditResult
from medclip.reports.audit.methods import LIMITS
from medclip.reports.audit.names import parts
from medclip.reports.audit.report import CARD, REPORT, render, write_audit_report
from medclip.reports.audit.summary import collect_findings
from medclip.statistics.metrics.catalogue import METRICS
from medclip.wording import real
from tests.kits.audit_report import EVIL, HIDDEN, LABELS, full, nearly_empty, six_attributes, without_findings
from tests.kits.pages import run_together

FRONT = ("question", "cohort", "found", "unseen", "basis", "limits", "signature")
ANNEX = (
    *(
        "diagnoses",
        "overview",
        "who",
        "unscored",
        "measures",
        "labels",
        "calibration",
        "thresholds",
        "shortcuts",
        "embeddings",
    ),
    *("leakage", "hidden", "methods", "provenance"),
)
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
_VOID = {"meta", "img", "br", "line", "rect", "circle", "polygon", "polyline"}


class Tree(HTMLParser):
    """Holds that every tag is closed in order, and keeps tags with the text of some."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page() -> str:
    return render(full())


@pytest.fixture(scope="module")
def two() -> str:
    return render(full(models=("medclip-mini", "adapted")))


@pytest.fixture(scope="module")
def empty() -> str:
    return render(nearly_empty())


def text_of(section: str, page: str) -> str:
    part = page[page.index(f'<section id="{section}">') :]
    return unescape(re.sub(r"<[^>]+>", " ", part[: part.index("</section>")]))


def test_it_loads_and_runs_nothing(page: str, two: str):
    for text in (page, two):
        assert "<script" not in text
        assert "default-src 'none'" in unescape(text)
        assert not re.findall(r"(?:src|href)=\"(?!#|data:)", text)
        assert " style=" not in text
        assert "http" not in text.replace("http-equiv", "")


def test_no_two_sentences_run_together(page: str, two: str, empty: str):
    for text in (page, two, empty, render(AuditResult())):
        assert not run_together(text)


def test_every_tag_is_closed_and_every_identity_is_there_once(page: str, two: str, empty: str):
    for text in (page, two, empty):
        tree = Tree(text)
        identities = [a["id"] for _, a in tree.tags if "id" in a]
        assert len(identities) == len(set(identities))
        for attributes in tree.named("a"):
            assert str(attributes["href"])[1:] in identities
        for _, attributes in tree.tags:
            named = str(attributes.get("aria-labelledby") or "").split()
            assert set(named) <= set(identities)


def test_it_has_every_part_also_where_there_is_nothing_to_show(page: str, empty: str):
    for text in (page, empty):
        places = [text.index(f'<section id="{part}">') for part in (*FRONT, *ANNEX)]
        assert places == sorted(places)
        assert places[len(FRONT) - 1] < text.index('<div class="annex"') < places[len(FRONT)]
        for limit in LIMITS:
            assert limit in unescape(text)
        assert "Not a medical device" in text
    assert "so this audit cannot say what they give away" in text_of("embeddings", empty)
    assert "No gap was tested" in empty[empty.index("<p") : empty.index("</p>")]
    assert '<section id="models">' not in empty
    assert "The models were not compared" not in empty


def test_an_audit_without_anything_is_a_page_too():
    shown = render(AuditResult())
    assert "There are no measures in this audit." in shown
    assert 'id="red"' not in shown


def test_tables_have_captions_and_headers_with_a_scope(page: str, two: str):
    for text in (page, two):
        tree = Tree(text)
        assert len(tree.named("caption")) == len(tree.named("table"))
        assert all(head.get("scope") in ("col", "row", "rowgroup") for head in tree.named("th"))


def test_drawings_have_a_title_and_a_description(page: str):
    drawings = Tree(page).named("svg")
    assert len(drawings) > 30
    assert all(d.get("role") == "img" and d.get("aria-labelledby") for d in drawings)
    assert page.count("<desc ") == len(drawings)


def test_what_scrolls_can_be_reached_with_the_keyboard(page: str):
    scrolls = [a for _, a in Tree(page).tags if a.get("class") == "scroll"]
    assert scrolls
    assert all(a.get("tabindex") == "0" and a.get("aria-label") for a in scrolls)


def test_red_checks_stand_on_top_in_words_with_a_sign(page: str):
    assert page.index('id="red"') < page.index('<section id="found">')
    box = page[page.index('id="red"') : page.index("</section>")]
    assert "✖" in box
    assert "Stop: leakage" in box
    assert "3 of 812 audited patients" in box
    assert "near-duplicate" not in box
    plain = render(without_findings())
    assert 'id="red"' not in plain
    assert '<p class="lead">' in plain
    assert '<p class="lead">' not in page  # the box says it


def test_the_table_of_leakage_says_what_was_not_tested(page: str):
    table = text_of("leakage", page)
    assert "✖ red" in table
    assert "not tested" in table
    assert "✓ nothing red" in table


def test_every_measure_that_may_be_shown_stands_on_the_page_once_whatever_its_names(page: str):
    for row in full().metrics:
        if real(row.get("value")) is not None and not METRICS[row["metric"]].repeats:
            value, around = parts(row)
            assert f">{value}<small>{around}</small>" in page


def test_every_gap_and_every_threshold_stands_on_the_page(page: str):
    made = full()
    for row in made.gaps:
        value, around = parts(row)
        assert f"{value}<small>{around}</small>" in page or row.get("same_as")
    for row in made.thresholds:
        assert f"{row['value']:.3f}" in page
    assert "validation split" in text_of("thresholds", page)


def test_groups_that_are_not_shown_keep_their_place(page: str):
    part = text_of("labels", page)
    for _, group in HIDDEN:
        assert group in part
    assert part.count("not shown: fewer than 10 positives") == len(HIDDEN) * len(LABELS)
    assert all(group in text_of("hidden", page) for _, group in HIDDEN)


def test_two_models_are_compared_and_told_apart_by_shape(two: str):
    part = text_of("models", two)
    assert "adapted minus medclip-mini" in part
    assert "p DeLong" in part
    drawing = two[two.index('id="label-0-t"') :]
    drawing = drawing[: drawing.index("</svg>")]
    assert 'class="c0 solid"' in drawing
    assert '<polygon class="c1 solid"' in drawing
    assert "<circle" in drawing


def test_each_section_names_its_files_and_each_table_is_named(two: str):
    for name in COLUMNS:
        assert f"<code>{name}.csv</code> and <code>{name}.parquet</code>" in two


def test_long_tables_of_shortcuts_and_embeddings_fold_what_has_neither_test_nor_words():
    made = full()
    single = {**made.shortcuts[0], "stratum": f"female, {BEFORE}", "note": "SINGLE"}
    dimension = {"model": "medclip-mini", "what": "centroid", "attribute": "sex", "name": "DIMENSION", "value": 0.1}
    centre = {**dimension, "name": "CENTRE", "p": 0.2}
    more = replace(made, shortcuts=(*made.shortcuts, single), embeddings=(*made.embeddings, centre, dimension))
    shown = render(more)
    folded = "".join(re.findall(r'<details class="(?:fold )?deep">.*?</details>', shown, flags=re.S))
    for word, is_folded in (("SINGLE", True), ("DIMENSION", True), ("CENTRE", False), ("verdict", False)):
        assert word in shown
        assert (word in folded) == is_folded


def test_text_from_tables_is_escaped_everywhere():
    made = full(labels=(EVIL, "b"), models=(EVIL, "other"))
    soiled = {
        field.name: tuple(_soiled(row) for row in made.rows(field.name))
        for field in fields(made)
        if field.name in COLUMNS
    }
    shown = render(replace(made, **soiled, notes=(EVIL,), settings={EVIL: EVIL}, provenance={EVIL: {EVIL: EVIL}}))
    assert "<img" not in shown
    assert "&lt;img" in shown
    Tree(shown)


def test_control_characters_of_a_name_are_written_out():
    made = full(labels=("a\u202eb",))
    assert "\u202e" not in render(made)
    assert "\\u202e" in render(made)


def test_the_same_results_give_the_same_bytes(page: str, tmp_path: Path):
    assert write_audit_report(full(), tmp_path).sealed == {}
    assert (tmp_path / REPORT).read_text() == page
    assert {p.name for p in tmp_path.iterdir()} == {REPORT, CARD}


def test_fourteen_labels_by_twelve_groups_stay_a_page_of_reasonable_size():
    shown = render(full(labels=tuple(f"finding {n}" for n in range(14))))
    assert len(shown) < 2_000_000
    overview = text_of("overview", shown)
    assert all(f"finding {n}" in overview for n in range(14))
    assert shown.count('<details class="fold" open>') <= 4


def test_command_date_inputs_and_filters_stand_on_the_page():
    made = full()
    recipe = {"where": ["split=test"], "key": ["path=id"], "uncertain": "zero", "policy": "f1"}
    about = {"command": "medclip audit net.csv --where split=test", "date": "2026-01-02", "recipe": recipe}
    shown = render(replace(made, provenance={**made.provenance, **about, "auditor": "J. Doe", "question": "Why?"}))
    part = text_of("provenance", shown)
    for words in ("medclip audit net.csv --where split=test", "2026-01-02", "where split=test", "key path=id", "zero"):
        assert words in part
    assert "net.csv" in part
    assert "a" * 64 in part
    assert "Why?" in text_of("question", shown)
    assert "J. Doe" in text_of("signature", shown)
    assert 'id="page-sha256"' not in shown  # nothing was written, so nothing can be signed


def test_nothing_is_promised(page: str, two: str, empty: str):
    for text in (page, two, empty, render(without_findings())):
        prose = unescape(re.sub(r"<[^>]+>", " ", text)).lower()
        for word in ("unbiased", "bias-free", "fair model", "is fair", "no bias", "safe to use", "fairness is"):
            assert word not in prose


def test_numbers_that_are_not_there_are_no_error():
    made = full()
    holes: dict[str, Any] = {
        name: tuple(
            {**row, "value": float("nan"), "low": None, "p": float("nan"), "p_holm": None} for row in made.rows(name)
        )
        for name in ("metrics", "gaps", "models", "differences", "shortcuts", "embeddings")
    }
    shown = render(replace(made, **holes))
    Tree(shown)
    assert "nan" not in re.sub(
        r"[a-z]nan|nan[a-z]", "", unescape(re.sub(r"<style>.*</style>", "", shown, flags=re.S)).lower()
    )


def _soiled(row: Any) -> dict[str, Any]:
    """Put markup into what a table says in words; names that join rows stay as they are."""
    kept = {"model", "other", "label", "attribute", "metric", "gap", "what", "after", "flag", "severity"}
    return {k: f"{v}{EVIL}" if isinstance(v, str) and k not in kept else v for k, v in row.items()}


def test_who_is_missed_stands_once_with_the_number_of_ill_and_the_ratio_to_the_largest_group():
    made = full()
    part = text_of("diagnoses", render(made))
    ratio = next(row for row in made.ratios if row["metric"] == "underdiagnosis")
    row = next(r for r in made.metrics if all(r[k] == ratio[k] for k in ("label", "attribute", "group", "metric")))
    value, times = parts(row)[0], parts(ratio)
    assert f"{value} ({row['n_pos']})" in part
    assert f"×{times[0]}, {times[1].replace(' to ', '–')}" in part
    assert "reference" in part
    healthy = text_of("diagnoses", render(replace(made, settings={**made.settings, "no_finding": [row["label"]]})))
    assert f"{value} ({row['n_neg']})" in healthy  # of a label that means healthy, the ill are the negatives


def test_many_findings_are_counted_on_the_first_pages_and_listed_in_the_annex():
    made = full()
    sure = tuple({**row, "p_holm": 0.001, "value": -0.1} for row in made.differences)
    many = replace(made, differences=sure, requirements=(), gaps=(), unscored=(), leakage=())
    shown = render(many)
    drawn = shown[shown.index('id="worst-t"') :]
    assert drawn[: drawn.index("</svg>")].count('class="whisker w0"') == 3 * 7  # a line with two ends for each
    assert "further findings:" in re.sub(r"\s+", " ", text_of("found", shown))
    assert text_of("findings", shown).count("in all others") == len(collect_findings(many)) > 7
    assert '<section id="findings">' not in render(without_findings())


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_two_models_five_labels_and_six_attributes_print_on_fewer_than_25_pages_two_of_them_to_be_signed(
    tmp_path: Path,
):
    made = six_attributes(full(labels=tuple(f"finding {n}" for n in range(5)), models=("first", "second")))
    # What only some audits ask for stays out; see the tests of its sections.
    made = replace(made, stress=(), stress_ood=(), ordinal=(), risk=(), representation=(), requirements=())
    write_audit_report(made, tmp_path)
    command = [str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", f"--print-to-pdf={tmp_path}/page.pdf"]
    subprocess.run([*command, (tmp_path / REPORT).as_uri()], capture_output=True, timeout=120, check=True)
    pdf = (tmp_path / "page.pdf").read_bytes()
    assert 10 < len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf)) < 25


def test_the_flow_of_rows_stands_on_the_first_pages():
    made = full()
    part = re.sub(r"\s+", " ", text_of("cohort", render(made)))
    assert "Rows of the label table 1,400 Joined with scores 1,221 Rows of the audit 1,204" in part
    assert "Pneumonia: with a truth → and a score 1,203 → 1,201" in part
    assert "4 % of 1,221 labelled rows lack a score" in part


def test_the_first_pages_have_each_threshold_with_its_origin():
    made = full()
    part = text_of("basis", render(made))
    assert "chosen on validation split" in part
    for row in made.thresholds:
        assert f"{row['label']} {row['value']:.3f}" in part


def test_a_difference_of_grades_is_drawn_among_the_findings():
    made = full()
    grades = tuple({**row, "value": -0.2, "p_holm": 0.001} for row in made.ordinal if row.get("reference"))
    shown = render(replace(made, ordinal=grades, differences=(), gaps=(), unscored=()))
    part = text_of("found", shown)
    assert "Density, " in part
    assert "exact agreement" in part  # drawn, for it has a difference


def test_what_stands_in_the_red_box_takes_no_room_in_the_table_of_the_first_pages():
    made = full()
    row = {"model": "medclip-mini", "severity": RED, "value": 0.3, "note": "It tells hospitals."}
    shown = render(replace(made, sources=(row,), requirements=(), differences=(), gaps=(), unscored=(), leakage=()))
    sentence = "The score follows the source. It tells hospitals."
    assert sentence in shown[: shown.index('id="found"')]
    assert sentence not in text_of("found", shown)
    assert "1 finding is in the box at the top" in re.sub(r"\s+", " ", text_of("found", shown))
