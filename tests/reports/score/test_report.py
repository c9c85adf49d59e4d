"""The report: self-contained, escaped, accessible, and silent about who the patients are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from medclip.models.card import Card, read_card
from medclip.reports.model_card import view_card
from medclip.reports.score.page import collect, ranges
from medclip.reports.score.report import bar, render, status_bar, write_score_report
from medclip.runs.ledger import Ledger
from medclip.runs.rows import FileRow, ScoreRow, Thumbnail
from tests.kits.ledger import fill_ledger
from tests.kits.pages import run_together

EVIL = "<img src=x onerror=alert(1)>\"'&"


class _Page(HTMLParser):
    """Collects tags and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data


def _score(
    study: str, name: str, probability: float, kind: str = "multiclass", task: str = "chest_xray_view"
) -> ScoreRow:
    return ScoreRow(study, None, "xray", task, name, kind, probability, 0.0, 1, "tiny", "1", "p")


def _fill(ledger: Ledger, num_studies: int = 3) -> None:
    ledger.remember({"identity": {"version": "0.1.0", "pack": "tiny 1 abc", "prompts": [EVIL], "against": []}})
    files, scores, thumbnails = [], [], []
    for n in range(1, num_studies + 1):
        key = f"s{n}"
        files.append(
            FileRow(
                *(n, f"{EVIL}/{n:04}.png", "0" * 64, 9, "png", "scored", None, None, key, "xray", "inferred", 0.97),
                steps='[["decode", "8 bits"]]',
                adapter="xray",
                grouping="file",
            )
        )
        scores += [_score(key, "ap", 0.7), _score(key, "pa", 0.2), _score(key, "lateral", 0.1)]
        scores.append(_score(key, "x", 0.6, "multilabel", "prompt"))
        thumbnails.append(Thumbnail(n, b"\xff\xd8jpeg", burned_in=False))
    bad = FileRow(num_studies + 1, f"{EVIL}/~.dcm", None, 0, "dicom", "failed", "truncated", f"Ends early {EVIL}.")
    fill_ledger(ledger, (*files, bad), tuple(scores), tuple(thumbnails))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path) as opened:
        _fill(opened)
        yield opened


@pytest.fixture
def card(pack: Path) -> Card:
    return read_card(pack)


def _page(ledger: Ledger, card: Any, **options: Any) -> tuple[str, _Page]:
    view = view_card(card)
    text = render(collect(ledger, view, **{"show_paths": False, **options}), view)
    return text, _Page(text)


def test_it_loads_nothing_and_runs_nothing(ledger: Ledger, card: Card) -> None:
    text, page = _page(ledger, card)
    names = {name for name, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "form", "base", "video", "audio"}
    for name, attributes in page.tags:
        assert "style" not in attributes, name
        assert not [key for key in attributes if key.startswith("on")]
        assert attributes.get("src", "data:image/jpeg;base64,").startswith("data:image/jpeg;base64,")
        assert attributes.get("href", "#").startswith("#")
    assert "url(" not in text
    assert "@import" not in text
    policy = next(a["content"] for n, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


@pytest.mark.parametrize("show_paths", [False, True])
def test_no_two_sentences_run_together(ledger: Ledger, card: Card, show_paths: bool) -> None:
    assert not run_together(_page(ledger, card, show_paths=show_paths)[0])


def test_text_from_outside_is_escaped(ledger: Ledger, card: Card) -> None:
    evil = card.model_copy(update={"summary": EVIL, "limits": (EVIL,), "name": EVIL})
    text, page = _page(ledger, evil, show_paths=True)
    assert "<img src=x" not in text
    assert EVIL in page.text
    assert all(name != "img" or a["src"].startswith("data:") for name, a in page.tags)


def test_what_must_be_known_of_a_figure_stands_beside_it_in_every_study_and_in_the_table(
    ledger: Ledger, card: Card
) -> None:
    words = f"Only within its source. {EVIL}"
    tasks = {name: task.model_copy(update={"note": words}) for name, task in card.tasks.items()}
    text, page = _page(ledger, card.model_copy(update={"tasks": tasks}))
    assert page.text.count(f"on unseen patients. {words}") >= 3, "three studies"
    assert page.text.count(words) == page.text.count(f"on unseen patients. {words}") + len(tasks)
    assert "<img src=x" not in text
    assert not run_together(text)


def test_files_are_named_by_number_unless_paths_are_asked_for(ledger: Ledger, card: Card) -> None:
    hidden = _page(ledger, card)[1].text
    assert "1.png" not in hidden
    assert "file 1 (PNG)" in hidden
    assert "1.png" in _page(ledger, card, show_paths=True)[1].text


def test_every_image_and_bar_can_be_read_without_seeing(ledger: Ledger, card: Card) -> None:
    _, page = _page(ledger, card)
    assert [a for n, a in page.tags if n == "html"] == [{"lang": "en"}]
    assert all(a.get("alt") for n, a in page.tags if n == "img")
    assert all(a.get("aria-hidden") == "true" or a.get("aria-label") for n, a in page.tags if n == "svg")
    assert "70 %" in page.text
    headings = [int(n[1]) for n, _ in page.tags if re.fullmatch(r"h[1-6]", n)]
    assert headings[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(headings))
    assert all(a.get("scope") for n, a in page.tags if n == "th")


def test_it_shows_the_first_studies_and_says_how_many_are_not_shown(ledger: Ledger, card: Card) -> None:
    page = _page(ledger, card, max_studies=2)[1]
    assert [n for n, _ in page.tags].count("article") == 2
    assert "2 of 3 studies are shown" in page.text
    assert "scores.parquet" in page.text


def test_an_unmeasured_task_says_so_and_a_measured_one_has_its_interval(ledger: Ledger, card: Card) -> None:
    text = _page(ledger, card)[1].text
    assert "nobody has measured how good the model is at this" in text
    assert "balanced accuracy 0.81 (0.74 to 0.88) on unseen patients" in text
    assert "Not a medical device" in text


def test_failures_stand_with_their_reason(ledger: Ledger, card: Card) -> None:
    text = _page(ledger, card)[1].text
    assert "Truncated" in text
    assert "Ends early" in text
    assert "file 4" in text


def test_a_study_says_which_of_its_files_could_not_be_read(tmp_path: Path, card: Card) -> None:
    row = FileRow(1, "1.dcm", None, 9, "dicom", "scored", None, None, "s", "xray", "header", grouping="uid")
    bad = FileRow(2, "2.dcm", None, 9, "dicom", "failed", "truncated", "Ends early.", "s")
    with Ledger(tmp_path) as ledger:
        fill_ledger(ledger, (row, bad), (replace(_score("s", "ap", 0.7), num_failed=1),), ())
        assert "1 of 2 files of this study could not be read (file 2)" in _page(ledger, card)[1].text


def test_a_prompt_stands_once_in_a_study_with_what_it_is_compared_with(tmp_path: Path, card: Card) -> None:
    row = FileRow(1, "1.dcm", None, 9, "dicom", "scored", None, None, "s", "xray", "header", grouping="uid")
    with Ledger(tmp_path) as ledger:
        ledger.remember({"identity": {"prompts": ["a pacemaker"], "against": []}})
        score = replace(_score("s", "a pacemaker", 0.7, "multilabel", "prompt"), against="no pacemaker")
        fill_ledger(ledger, (row,), (score,))
        study = _page(ledger, card)[0].split("<article")[1].split("</article>")[0]
    assert study.count(">a pacemaker <small>against “no pacemaker”</small><") == 1
    assert study.count("a pacemaker") == 1


def test_a_file_name_is_shown_with_its_control_characters_escaped(tmp_path: Path, card: Card) -> None:
    row = FileRow(1, "a\x1b\u202e.dcm", None, 9, "dicom", "scored", None, None, "s", "xray", "header", grouping="uid")
    bad = FileRow(2, "b\n.dcm", None, 9, "dicom", "failed", "truncated", "Ends early.", "s")
    with Ledger(tmp_path) as ledger:
        fill_ledger(ledger, (row, bad), (_score("s", "ap", 0.7),), ())
        text = _page(ledger, card, show_paths=True)[1].text
    assert "a\\x1b\\u202e.dcm" in text
    assert "b\\n.dcm" in text


def test_a_report_asked_for_again_is_left_alone_and_with_paths_is_written_anew(
    ledger: Ledger, card: Card, tmp_path: Path
) -> None:
    path = write_score_report(ledger, card, tmp_path)
    before = path.stat().st_ino
    write_score_report(ledger, card, tmp_path)
    assert path.stat().st_ino == before
    write_score_report(ledger, card, tmp_path, show_paths=True)
    assert path.stat().st_ino != before


def test_figures_of_a_card_may_be_nested_by_rival_and_class() -> None:
    figure = {"value": 0.9, "low": 0.8, "high": 0.95, "chance": 0.5}
    metrics = {"auroc": {"effusion": {"zero_shot": figure, "linear_probe": {"value": 0.92}}}, "macro_auroc": figure}
    card = Card.model_validate({"name": "n", "tasks": {"chest_xray_findings": {"classes": ["a"], "metrics": metrics}}})
    first, second = view_card(card).tasks[0].metrics
    assert (first.name, first.value, first.interval) == ("AUROC, effusion", "0.90", "0.80 to 0.95")
    assert first.baselines == "linear probe 0.92"
    assert second.name == "AUROC, mean over classes"


def test_row_numbers_are_written_as_ranges() -> None:
    assert ranges([1, 2, 3, 7, 9, 10]) == "1–3, 7, 9–10"


def test_bars_stay_inside_their_frame() -> None:
    assert 'width="1000"' in bar(2.0)
    assert 'class="fill" width="0"' in bar(-1.0)
    assert status_bar({"scored": 0, "skipped": 0, "failed": 0}).count("<rect") == 1
    assert 'aria-label="5 scored, 0 skipped, 1 failed"' in status_bar({"scored": 5, "skipped": 0, "failed": 1})
