"""The report: self-contained, escaped, accessible, and silent about who the patients are."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.models.packs.card import Card, read_card
from medclip.reports.model_card import view_card
from medclip.reports.score.page import collect, studies_of
from medclip.reports.score.report import bar, render, status_bar, write_score_report
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.outputs.results import hashes_of
from medclip.runs.rows import FileRow, Ranking
from medclip.text.vocabulary.load import load_task
from tests.kits.ledger import fill_ledger
from tests.kits.pages import run_together
from tests.kits.score_report import EVIL, Page, fill_with_evil, score_row


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path) as opened:
        fill_with_evil(opened)
        yield opened


@pytest.fixture
def card(pack: Path) -> Card:
    return read_card(pack)


def _page(ledger: Ledger, card: Any, **options: Any) -> tuple[str, Page]:
    view = view_card(card)
    report = collect(ledger, view, **{"show_paths": False, **options})
    text = render(report, view, tuple(studies_of(ledger, view, report, 1)))
    return text, Page(text)


def _pages(folder: Path) -> dict[str, Page]:
    return {path.name: Page(path.read_text()) for path in sorted(folder.glob("report*.html"))}


def _order(folder: Path) -> list[str]:
    """The keys of the studies, in the order of the pages."""
    names = ["report.html", *(f"report-{n}.html" for n in range(2, 9))]
    texts = [(folder / name).read_text() for name in names if (folder / name).exists()]
    return re.findall(r'title="Keyed hash of the study">(\w+)<', "".join(texts))


def test_no_page_loads_or_runs_anything(ledger: Ledger, card: Card, tmp_path: Path) -> None:
    write_score_report(ledger, card, tmp_path, studies_a_page=2, show_paths=True)
    ours = {"scores.parquet", "files.parquet", "report-images/0.jpg", *_pages(tmp_path)}
    for file, page in _pages(tmp_path).items():
        text, names = (tmp_path / file).read_text(), [name for name, _ in page.tags]
        assert not {"link", "iframe", "object", "embed", "form", "base", "video", "audio"}.intersection(names)
        scripts = [attributes for name, attributes in page.tags if name == "script"]
        assert scripts == ([{"type": "application/json", "id": "index"}, {}] if file == "report-search.html" else [])
        for name, attributes in page.tags:
            assert "style" not in attributes, name
            assert not [key for key in attributes if key.startswith("on")]
            src = attributes.get("src", "data:image/jpeg;base64,")
            assert src.startswith("data:image/jpeg;base64,") or (tmp_path / src).read_bytes().startswith(b"\xff\xd8")
            assert attributes.get("href", "#").split("#")[0] in {"", *ours}
        assert "url(" not in text
        assert "@import" not in text
        policy = next(a["content"] for n, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in policy
        assert ("script-src" in policy) == (file == "report-search.html")


def test_a_browser_runs_the_script_of_the_search_and_no_other(ledger: Ledger, card: Card, tmp_path: Path) -> None:
    write_score_report(ledger, card, tmp_path, studies_a_page=2, show_paths=True)
    text = (tmp_path / "report-search.html").read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text.replace("&#39;", "'")
    assert not re.search(r"https?:|fetch|XMLHttp|innerHTML|eval|import|location|cookie|storage", script, re.IGNORECASE)


@pytest.mark.parametrize("show_paths", [False, True])
def test_no_two_sentences_run_together(ledger: Ledger, card: Card, show_paths: bool) -> None:
    assert not run_together(_page(ledger, card, show_paths=show_paths)[0])


def test_text_from_outside_is_escaped(ledger: Ledger, card: Card) -> None:
    evil = card.model_copy(update={"summary": EVIL, "limits": (EVIL,), "name": EVIL})
    text, page = _page(ledger, evil, show_paths=True)
    assert "<img src=x" not in text
    assert EVIL in page.text
    assert all(name != "img" or a["src"].startswith("data:") for name, a in page.tags)


def test_what_must_be_known_of_a_figure_stands_above_the_studies_and_each_figure_leads_there(
    ledger: Ledger, card: Card
) -> None:
    words = f"Only within its source. {EVIL}"
    tasks = {name: task.model_copy(update={"note": words}) for name, task in card.tasks.items()}
    text, page = _page(ledger, card.model_copy(update={"tasks": tasks}))
    asked = [name for name in tasks if f'id="known-{name}"' in text]
    assert asked
    assert page.text.count(words) == len(asked) + len(tasks), "above the studies, and in the table of the model"
    assert sum(text.count(f'href="#known-{name}"') for name in asked) >= 3, "three studies"
    assert text.count('href="#known-') == sum(text.count(f'href="#known-{name}"') for name in asked)
    assert text.index(f'id="known-{asked[0]}"') < text.index('class="study"')
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


def test_beyond_the_last_page_one_sentence_leads_to_the_table(ledger: Ledger, card: Card, tmp_path: Path) -> None:
    write_score_report(ledger, card, tmp_path, studies_a_page=1, max_pages=2)
    pages = _pages(tmp_path)
    assert set(pages) == {"report.html", "report-2.html", "report-search.html"}
    for name in ("report.html", "report-2.html"):
        assert [n for n, _ in pages[name].tags].count("article") == 1
        assert "2 of 3 studies are shown;" in pages[name].text
        assert {"href": "scores.parquet"} in [a for n, a in pages[name].tags if n == "a"]
    listed = pages["report-search.html"]
    assert "Studies without a link have no place on the report’s pages." in listed.text
    assert [a["href"] for n, a in listed.tags if "#study" in a.get("href", "")] == [
        "report.html#study-1",
        "report-2.html#study-2",
    ]
    assert all(ledger.thumbnail(n) is not None for n in (1, 2, 3))


def test_beyond_the_end_of_the_list_one_sentence_leads_to_the_table_and_images_go(
    ledger: Ledger, card: Card, tmp_path: Path
) -> None:
    write_score_report(ledger, card, tmp_path, studies_a_page=1, max_pages=2, max_listed=2)
    assert "one of the 1 that only scores.parquet has" in _pages(tmp_path)["report-search.html"].text
    assert [ledger.thumbnail(n) is not None for n in (1, 2, 3)] == [True, True, False]  # only of what is shown
    assert [p.name for p in (tmp_path / "report-images").iterdir()] == ["0.jpg"]


def test_pages_and_search_lead_to_each_other_and_to_every_study(ledger: Ledger, card: Card, tmp_path: Path) -> None:
    write_score_report(ledger, card, tmp_path, studies_a_page=1)
    pages = _pages(tmp_path)
    ids = {name: {a["id"] for _, a in page.tags if "id" in a} for name, page in pages.items()}
    for name, page in pages.items():
        for a in (a for n, a in page.tags if n == "a" and not a["href"].endswith(".parquet")):
            target, _, anchor = a["href"].partition("#")
            assert not anchor or anchor in ids[target or name], (name, a["href"])
    links = {name: [a["href"] for n, a in page.tags if n == "a"] for name, page in pages.items()}
    assert {"report.html#studies", "report-3.html#studies"} <= set(links["report-2.html"])
    assert "report-2.html#studies" in links["report.html"]
    assert [link for link in links["report-search.html"] if "#" in link] == [
        "report.html#study-1",
        "report-2.html#study-2",
        "report-3.html#study-3",
    ]
    assert _order(tmp_path) == ["s1", "s2", "s3"]
    assert all("Not a medical device" in page.text for name, page in pages.items() if "search" not in name)


def test_one_page_is_one_file_and_pages_of_an_earlier_report_go(ledger: Ledger, card: Card, tmp_path: Path) -> None:
    write_score_report(ledger, card, tmp_path, studies_a_page=1)
    (tmp_path / "report-of-mine.html").write_text("not ours")
    assert len(hashes_of(tmp_path)) == 4
    write_score_report(ledger, card, tmp_path)
    assert set(_pages(tmp_path)) == {"report.html", "report-of-mine.html"}
    assert "Sort and find studies" not in (tmp_path / "report.html").read_text()


def test_studies_are_sorted_by_the_score_one_chooses_and_those_without_it_stand_last(
    tmp_path: Path, card: Card
) -> None:
    probabilities = {"a": 0.2, "b": None, "c": 0.9, "d": 0.2, "e": 0.91}
    files = [
        FileRow(n, f"{key}.png", None, 9, "png", "scored", None, None, key, "xray", "header", grouping="file")
        for n, key in enumerate(probabilities, start=1)
    ]
    scores = [score_row(key, "pa", 0.5) for key in probabilities]
    scores += [
        score_row(key, "effusion", p, "multilabel", "chest_xray_findings") for key, p in probabilities.items() if p
    ]
    with Ledger(tmp_path) as ledger:
        fill_ledger(ledger, files, scores)
        chosen = Ranking("chest_xray_findings", ("effusion",))
        write_score_report(ledger, card, tmp_path, studies_a_page=2, sort_by=chosen)
        assert _order(tmp_path) == ["e", "c", "a", "d", "b"]
        text = Page((tmp_path / "report-2.html").read_text()).text
        assert "Sorted by the probability of Pleural effusion (Chest X-ray findings), the highest first." in text
        assert "1 study was not asked this and stands last." in text
        assert "Pleural effusion 20 %" in text
        write_score_report(ledger, card, tmp_path, studies_a_page=2)
        assert _order(tmp_path) == list(probabilities)
        write_score_report(ledger, card, tmp_path, sort_by=Ranking("brain_mri_tumour", ("glioma",)))
        assert _order(tmp_path) == list(probabilities)
        text = (tmp_path / "report.html").read_text()
        assert "No study was asked this" in text
        assert 'class="histogram"' not in text


def test_the_search_names_paths_only_where_they_are_asked_for(ledger: Ledger, card: Card, tmp_path: Path) -> None:
    write_score_report(ledger, card, tmp_path, studies_a_page=2)
    hidden = (tmp_path / "report-search.html").read_text()
    assert "0001.png" not in hidden
    assert "file 1" in hidden
    write_score_report(ledger, card, tmp_path, studies_a_page=2, show_paths=True)
    shown = (tmp_path / "report-search.html").read_text()
    assert "<img src=x" not in shown
    assert f"{EVIL}/0001.png" in Page(shown).text
    (index,) = re.findall(r'<script type="application/json" id="index">(.*?)</script>', shown)
    assert f"{EVIL}/0001.png" in [study[5] for study in json.loads(index)["studies"]]


def test_the_search_can_be_used_by_keyboard_and_screen_reader_and_without_scripts(
    ledger: Ledger, card: Card, tmp_path: Path
) -> None:
    write_score_report(ledger, card, tmp_path, studies_a_page=2, sort_by=Ranking("chest_xray_view", ("pa",)))
    page = Page((tmp_path / "report-search.html").read_text())
    assert [a["for"] for n, a in page.tags if n == "label"] == ["find", "modality", "class"]
    assert [a["id"] for n, a in page.tags if n in ("input", "select")] == ["find", "modality", "class"]
    assert [a for n, a in page.tags if a.get("role") == "search" and "hidden" in a]
    assert all(a.get("scope") for n, a in page.tags if n == "th")
    assert "Posteroanterior (PA)" in page.text


def test_words_that_nobody_measured_say_so_and_a_measured_one_has_its_interval(ledger: Ledger, card: Card) -> None:
    text = _page(ledger, card)[1].text
    assert "nobody has measured these words: the card’s figures are of its own wordings" in text
    assert "balanced accuracy 0.81 (0.74 to 0.88; chance 0.50) on unseen patients" in text
    assert "Not a medical device" in text


def test_failures_stand_with_their_reason(ledger: Ledger, card: Card) -> None:
    text = _page(ledger, card)[1].text
    assert "Truncated" in text
    assert "Ends early" in text
    assert "file 4" in text


@pytest.mark.parametrize(("num_files", "named"), [(1, "file 1 (PNG)"), (3, "files 1–3")])
def test_a_study_without_images_names_its_files(tmp_path: Path, card: Card, num_files: int, named: str) -> None:
    files = [
        FileRow(n, f"{n}.png", None, 9, "png", "scored", None, None, "s", "xray", "header", grouping="folder")
        for n in range(1, num_files + 1)
    ]
    with Ledger(tmp_path) as ledger:
        fill_ledger(ledger, files, (score_row("s", "ap", 0.7),))
        assert f">{named}<" in _page(ledger, card)[0]


def test_a_study_says_which_of_its_files_could_not_be_read(tmp_path: Path, card: Card) -> None:
    row = FileRow(1, "1.dcm", None, 9, "dicom", "scored", None, None, "s", "xray", "header", grouping="uid")
    bad = FileRow(2, "2.dcm", None, 9, "dicom", "failed", "truncated", "Ends early.", "s")
    with Ledger(tmp_path) as ledger:
        fill_ledger(ledger, (row, bad), (replace(score_row("s", "ap", 0.7), num_failed=1),), ())
        assert "1 of 2 files of this study could not be read (file 2)" in _page(ledger, card)[1].text


def test_a_prompt_stands_once_in_a_study_with_what_it_is_compared_with(tmp_path: Path, card: Card) -> None:
    row = FileRow(1, "1.dcm", None, 9, "dicom", "scored", None, None, "s", "xray", "header", grouping="uid")
    with Ledger(tmp_path) as ledger:
        prompt = {"name": "a pacemaker", "texts": ["a pacemaker", "a device"], "against": ["no pacemaker", "no device"]}
        ledger.remember({"identity": {"prompts": [prompt]}})
        score = replace(
            score_row("s", "a pacemaker", 0.7, "multilabel", "prompt"),
            against="no pacemaker | no device",
            probability_spread=0.123,
        )
        fill_ledger(ledger, (row,), (score,))
        page = _page(ledger, card)[0]
    study = page.split("<article")[1].split("</article>")[0]
    assert "Asked: “a pacemaker” or “a device”, compared with “no pacemaker” or “no device”." in page
    note = "against “no pacemaker” or “no device” · changes by ± 12 points with the wording"
    assert study.count('<th scope="row">a pacemaker</th>') == 1
    assert study.count(f'<tr class="beside"><td colspan="3"><small>{note}</small></td></tr>') == 1, "as wide as the row"
    assert study.count("a pacemaker") == 1


def test_a_file_name_is_shown_with_its_control_characters_escaped(tmp_path: Path, card: Card) -> None:
    row = FileRow(1, "a\x1b\u202e.dcm", None, 9, "dicom", "scored", None, None, "s", "xray", "header", grouping="uid")
    bad = FileRow(2, "b\n.dcm", None, 9, "dicom", "failed", "truncated", "Ends early.", "s")
    with Ledger(tmp_path) as ledger:
        fill_ledger(ledger, (row, bad), (score_row("s", "ap", 0.7),), ())
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
    metrics["auroc"]["effusion"]["imagenet_probe"] = {"value": 0.85}
    card = Card.model_validate({"name": "n", "tasks": {"chest_xray_findings": {"classes": ["a"], "metrics": metrics}}})
    first, second = view_card(card).tasks[0].metrics
    assert (first.name, first.value, first.interval) == ("AUROC, Pleural effusion", "0.90", "0.80 to 0.95")
    assert first.baselines == "linear probe 0.92; linear probe on ImageNet features 0.85"
    assert second.name == "AUROC, mean over classes"


def test_bars_stay_inside_their_frame() -> None:
    assert 'width="1000"' in bar(2.0)
    assert 'class="fill" width="0"' in bar(-1.0)
    assert status_bar({"scored": 0, "skipped": 0, "failed": 0}).count("<rect") == 1
    assert 'aria-label="5 scored, 0 skipped, 1 failed"' in status_bar({"scored": 5, "skipped": 0, "failed": 1})


def test_figures_of_questions_about_other_kinds_of_images_are_folded_away(ledger: Ledger, card: Card) -> None:
    model = _page(ledger, card)[0].split('<section id="model">')[1]
    seen, _, rest = model.partition("<details><summary>")
    folded = rest.split("</details>")[0]
    titles = {name: load_task(name).title for name in card.tasks}
    here = [name for name in card.tasks if "xray" in load_task(name).modalities] + ["modality"]
    assert len(here) < len(titles)
    assert all(titles[name] in seen for name in here)
    assert not [name for name in titles if name not in here and titles[name] in seen]
    assert folded.startswith(f"{len(titles) - len(here)} questions about other kinds of images than these")
    assert all(titles[name] in folded for name in titles if name not in here)


def test_studies_of_a_scale_are_sorted_by_the_expected_step(tmp_path: Path, card: Card) -> None:
    steps = ("none", "mild", "severe")
    shares = {"a": (0.5, 0.4, 0.1), "b": (0.2, 0.1, 0.7), "c": (0.0, 1.0, 0.0), "d": None}
    files = [
        FileRow(n, f"{key}.png", None, 9, "png", "scored", None, None, key, "xray", "header", grouping="file")
        for n, key in enumerate(shares, start=1)
    ]
    scores = [score_row(key, "pa", 0.5) for key in shares]
    scores += [
        score_row(key, step, p, task="haze")
        for key, of_steps in shares.items()
        for step, p in zip(steps, of_steps or (), strict=False)
    ]
    with Ledger(tmp_path) as ledger:
        fill_ledger(ledger, files, scores)
        by = Ranking("haze", steps)
        assert ledger.studies(9, by) == ["b", "c", "a", "d"]
        assert ledger.spread_by(by, 4) == [0, 1, 1, 1]
        write_score_report(ledger, card, tmp_path, studies_a_page=2, sort_by=by)
        assert _order(tmp_path) == ["b", "c", "a", "d"]
        page = Page((tmp_path / "report.html").read_text()).text
        assert "Sorted by the expected step (" in page
        assert "1 study was not asked this and stands last." in page
        assert "Expected step 1.5" in page
        assert "expected step 1.5 of 0 (none) to 2 (severe)" in page
        search = (tmp_path / "report-search.html").read_text()
        (index,) = map(json.loads, re.findall(r'<script type="application/json" id="index">(.*?)</script>', search))
        title, number = index["classes"][index["chosen"]][0], index["chosen"]
        assert (title, index["highest"]) == ("Expected step", {str(number): 2})
        answers = {study[0]: dict(zip(study[6][::2], study[6][1::2], strict=True)) for study in index["studies"]}
        assert [answers[key].get(number) for key in shares] == [300, 750, 500, None]
        write_score_report(ledger, card, tmp_path, studies_a_page=2)  # the ledger does not know of an order
        assert "xpected step" not in (tmp_path / "report.html").read_text().replace("the expected step of a scale", "")


@given(st.lists(st.tuples(*[st.floats(0.001, 1)] * 4), min_size=1, max_size=12))
def test_the_order_of_the_ledger_is_that_of_the_formula(rows: list[tuple[float, ...]]) -> None:
    names, by = "abcd", Ranking("grade", tuple("bda"))
    scores = [
        score_row(f"s{n}", name, p, task="grade")
        for n, row in enumerate(rows)
        for name, p in zip(names, row, strict=True)
    ]
    files = [
        FileRow(n, f"{n}.png", None, 9, "png", "scored", None, None, f"s{n}", "xray", "header", grouping="file")
        for n in range(len(rows))
    ]
    values = [by.value_of(dict(zip(names, row, strict=True))) for row in rows]
    with TemporaryDirectory() as folder, Ledger(Path(folder)) as ledger:
        fill_ledger(ledger, files, scores)
        placed = [values[int(key[1:])] for key in ledger.studies(99, by)]
    assert placed == pytest.approx(sorted(values, reverse=True))
