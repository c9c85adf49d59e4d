"""The list of a report's studies, sorted and searched in a browser, at two sizes and at a hundred thousand studies."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medclip.models.packs.card import Card, read_card
from medclip.reports.model_card import view_card
from medclip.reports.score.page import LEAST_LISTED, collect
from medclip.reports.score.report import render_search, write_score_report
from medclip.reports.score.worklist import STUDIES_SHOWN, ListedStudy, Worklist, cell_of, collect_worklist
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.rows import FileRow, Thumbnail
from tests.kits.ledger import fill_ledger
from tests.kits.score_report import fill_with_evil, score_row, small_jpeg

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs Chromium. Run: apt-get install chromium")
KEYS = {"s1": 0.3, "s2": 0.9, "s3": 0.004}


def shown_by_a_browser(page: Path) -> str:
    command = [str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def after(page: Path, steps: str) -> str:
    """Show a page after steps of a person, which run as a script behind that of the page."""
    text = re.sub(r"<meta http-equiv.*?>", "", page.read_text())
    acted = page.with_name("acted.html")
    acted.write_text(text.replace("</body>", f"<script>{steps}</script></body>"))
    return shown_by_a_browser(acted)


def keys_in(shown: str) -> list[str]:
    (rows,) = re.findall(r'<tbody id="rows">(.*?)</tbody>', shown, flags=re.DOTALL)
    return re.findall(r"<code>(\w+)</code>", rows)


def typed(text: str) -> str:
    return f'field.value = "{text}"; field.dispatchEvent(new Event("input"));'


@pytest.fixture
def card(pack: Path) -> Card:
    return read_card(pack)


def write_list(folder: Path, card: Card, **options: Any) -> Path:
    """Write a report of three studies, on a page each, and return its list."""
    files, scores, images = [], [], []
    for number, (key, probability) in enumerate(KEYS.items(), start=1):
        modality = "mri" if key == "s2" else "xray"
        path = f"ward/{number:04}.PNG"
        row = FileRow(number, path, None, 9, "png", "scored", None, None, key, modality, "header", grouping="file")
        files.append(row)
        scores.append(replace(score_row(key, "pa", 0.5), modality=modality))
        effusion = score_row(key, "effusion", probability, "multilabel", "chest_xray_findings")
        scores.append(replace(effusion, modality=modality, num_failed=number - 1))
        images.append(Thumbnail(number, b"" if key == "s3" else small_jpeg(100 * number), burned_in=key == "s3"))
    with Ledger(folder) as ledger:
        fill_ledger(ledger, files, scores, images)
        write_score_report(ledger, card, folder, studies_a_page=1, **options)
    return folder / "report-search.html"


def screenshot_of(page: Path, width_px: int = 1000) -> Any:
    """Return what a browser shows of a page as an array, [H, W, 3]."""
    file = page.with_suffix(".png")
    size = f"--window-size={width_px},800"
    command = [str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", size, f"--screenshot={file}"]
    subprocess.run([*command, page.as_uri()], capture_output=True, timeout=120, check=True)
    return np.asarray(Image.open(file).convert("RGB"))


def greys_in(shown: Any) -> list[int]:
    """Return which multiples of 100 are the grey of an image on a page: 64 x 48 px, near enough for a JPEG."""
    greys = shown.max(axis=2)[shown.max(axis=2) - shown.min(axis=2) <= 2].astype(int)
    return [grey for grey in (100, 200) if 2000 < (abs(greys - grey) <= 2).sum() < 4000]


@pytest.fixture(scope="module")
def pages_of_one(pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of which each study has a page of its own, seen to run its script."""
    folder = tmp_path_factory.mktemp("pages")
    with Ledger(folder) as ledger:
        fill_with_evil(ledger)
        write_score_report(ledger, read_card(pack), folder, studies_a_page=1, show_paths=True)
    assert ">3 studies</output>" in shown_by_a_browser(folder / "report-search.html")  # its policy lets the script run
    return folder / "report-search.html"


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize(
    ("text", "keys"),
    [("", ["s1", "s2", "s3"]), ("2", ["s2"]), ("File 3", ["s3"]), ("S1", ["s1"]), ("0002.PNG", ["s2"]), ("12", [])],
)
def test_a_study_is_found_by_key_number_and_path_whatever_its_page(
    pages_of_one: Path, text: str, keys: list[str]
) -> None:
    shown = after(pages_of_one, typed(text))
    assert keys_in(shown) == keys
    assert "<img src=x" not in shown


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize(
    ("steps", "keys"),
    [
        ("", ["s1", "s2", "s3"]),
        ('byId("by-answer").firstChild.click();', ["s2", "s1", "s3"]),
        ('byId("by-answer").firstChild.click(); byId("by-answer").firstChild.click();', ["s3", "s1", "s2"]),
        ('byId("by-modality").firstChild.click();', ["s2", "s1", "s3"]),
        ('modality.value = "1"; modality.dispatchEvent(new Event("change"));', ["s1", "s3"]),
    ],
)
def test_studies_are_sorted_by_what_is_clicked_and_narrowed_by_modality(
    card: Card, tmp_path: Path, steps: str, keys: list[str]
) -> None:
    shown = after(write_list(tmp_path, card), steps)
    assert keys_in(shown) == keys
    assert len(re.findall(r"<th [^>]*aria-sort=", shown)) == 1
    assert "Pleural effusion" in shown


@pytest.mark.slow
@needs_browser
def test_a_browser_shows_the_images_beside_the_page_and_the_lines_that_stand_in_it_without_scripts(
    card: Card, tmp_path: Path
) -> None:
    page = write_list(tmp_path, card)
    assert "img-src data: &#39;self&#39; file:" in page.read_text()
    assert greys_in(screenshot_of(page)) == [100, 200]
    (tmp_path / "without.html").write_text(re.sub(r"script-src .*?(?=\")", "script-src 'none'", page.read_text()))
    without = shown_by_a_browser(tmp_path / "without.html")
    assert "The first 3 of 3 studies" in without
    assert keys_in(without) == keys_in(shown_by_a_browser(page)) == ["s1", "s2", "s3"]
    assert "withheld" in without
    assert "2 more files not read" in without


def test_the_lines_of_the_page_are_those_of_the_index(card: Card, tmp_path: Path) -> None:
    text = write_list(tmp_path, card).read_text()
    (index,) = re.findall(r'<script type="application/json" id="index">(.*?)</script>', text)
    values = json.loads(index)
    assert [study[0] for study in values["studies"]] == keys_in(text) == list(KEYS)
    assert [study[3] for study in values["studies"]] == [1, 1, 2]
    assert values["classes"][values["chosen"]] == ["Pleural effusion", "Chest X-ray findings"]
    assert [study[6][study[6].index(values["chosen"]) + 1 :: 2] for study in values["studies"][:2]] == [[300], [900]]
    assert values["chosen"] not in values["studies"][2][6][::2], "less than one in a hundred"
    assert re.findall(r'<td class="number">(.*?)</td>', text) == ["30 %", "90 %", "–"]


def test_a_line_rounds_a_half_up_as_the_script_does() -> None:
    studies = [ListedStudy("k", "X-ray", "1", "", 0, 0, False, (0, permille)) for permille in (45, 55, 449, 1000)]
    worklist = Worklist(tuple(studies), (("Effusion", "Chest"),), 0)
    assert [worklist.percent_of(study) for study in studies] == ["5 %", "6 %", "45 %", "100 %"]


def test_a_report_of_few_studies_has_no_list_and_leaves_no_images(card: Card, tmp_path: Path) -> None:
    write_list(tmp_path, card)
    assert (tmp_path / "report-images" / "0.jpg").exists()
    with Ledger(tmp_path) as ledger:
        write_score_report(ledger, card, tmp_path)
    assert not (tmp_path / "report-search.html").exists()
    assert not (tmp_path / "report-images").exists()


def test_images_that_went_come_back_with_the_next_call(card: Card, tmp_path: Path) -> None:
    write_list(tmp_path, card)
    shutil.rmtree(tmp_path / "report-images")
    with Ledger(tmp_path) as ledger:
        write_score_report(ledger, card, tmp_path, studies_a_page=1)
    sheet = np.asarray(Image.open(tmp_path / "report-images" / "0.jpg"))
    assert sheet.shape == (800, 800)
    assert abs(sheet[10:70, 0:160].astype(int) - np.repeat([100, 200], 80)).max() <= 3
    assert sheet[10:70, 160:240].max() <= 3, "the third study's image is withheld"


def test_the_sheets_of_a_list_have_every_image_in_its_cell_in_the_order_of_the_list(card: Card, tmp_path: Path) -> None:
    number = 230
    with Ledger(tmp_path) as ledger:
        fill_with_evil(ledger, number)
        write_score_report(ledger, card, tmp_path)
        keys = ledger.studies(number)
    assert sorted(path.name for path in (tmp_path / "report-images").iterdir()) == ["0.jpg", "1.jpg", "2.jpg"]
    for place in range(1, number + 1):
        cell = cell_of(place)
        sheet = np.asarray(Image.open(tmp_path / cell.sheet))
        middle = sheet[cell.top + 20 : cell.top + 60, cell.left + 20 : cell.left + 60]
        assert abs(middle.astype(int) - 40 * int(keys[place - 1][1:]) % 256).max() <= 3


def test_images_in_colour_stay_so_and_a_sheet_of_grey_ones_is_grey(card: Card, tmp_path: Path) -> None:
    red = BytesIO()
    Image.new("RGB", (90, 160), (200, 30, 30)).save(red, format="JPEG")
    with Ledger(tmp_path) as ledger:
        rows = [
            FileRow(n, f"{n}.png", None, 9, "png", "scored", None, None, f"s{n}", "xray", "header", grouping="file")
            for n in (1, 2)
        ]
        images = [Thumbnail(1, small_jpeg(100), burned_in=False), Thumbnail(2, red.getvalue(), burned_in=False)]
        fill_ledger(ledger, rows, [score_row(row.study or "", "pa", 0.5) for row in rows], images)
        write_score_report(ledger, card, tmp_path, studies_a_page=1)
    sheet = Image.open(tmp_path / "report-images" / "0.jpg")
    assert sheet.mode == "RGB"
    assert abs(np.asarray(sheet)[40, 120].astype(int) - (200, 30, 30)).max() <= 10
    assert np.ptp(np.asarray(sheet)[40, 40].astype(int)) <= 4


def test_a_report_of_one_page_and_many_studies_has_a_list(card: Card, tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        fill_with_evil(ledger, LEAST_LISTED)
        write_score_report(ledger, card, tmp_path)
    assert (tmp_path / "report-search.html").exists()
    assert 'href="report-search.html"' in (tmp_path / "report.html").read_text()


@pytest.mark.slow
@needs_browser
def test_a_hundred_thousand_studies_are_sorted_and_searched_in_a_browser(card: Card, tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        fill_with_evil(ledger)
        report = collect(ledger, view_card(card), show_paths=False)
        few = collect_worklist(ledger, view_card(card), report)
    studies = tuple(
        ListedStudy(f"{n:016x}", "X-ray", str(n), "", 0, n, False, (0, n * 7919 % 1000)) for n in range(1, 100_001)
    )
    page = tmp_path / "report-search.html"
    page.write_text(render_search(report, Worklist(studies, few.classes, 0)))
    assert page.stat().st_size < 10_000_000
    begun = time.monotonic()
    shown = after(page, 'byId("by-answer").firstChild.click(); byId("on").click();')
    assert time.monotonic() - begun < 60
    top = sorted(range(1, 100_001), key=lambda n: (-(n * 7919 % 1000), n))
    assert keys_in(shown) == [f"{n:016x}" for n in top[STUDIES_SHOWN : 2 * STUDIES_SHOWN]]
    assert "Page 2 of 2,000" in shown
    assert shown.count("<image ") == STUDIES_SHOWN + 1  # one is what the others are copied from
    assert keys_in(after(page, typed("file 77777"))) == [f"{77777:016x}"]
