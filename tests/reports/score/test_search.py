"""The search of a report with several pages, in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from medclip.models.card import read_card
from medclip.reports.score.report import write_score_report
from medclip.runs.ledger import Ledger
from tests.kits.score_report import fill_with_evil

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


def _shown_by_a_browser(page: Path) -> str:
    command = [str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.parametrize(
    ("typed", "keys"),
    [("", ["s1", "s2", "s3"]), ("2", ["s2"]), ("File 3", ["s3"]), ("S1", ["s1"]), ("0002.PNG", ["s2"]), ("12", [])],
)
def test_a_study_is_found_by_key_number_and_path_whatever_its_page(
    pack: Path, tmp_path: Path, typed: str, keys: list[str]
) -> None:
    with Ledger(tmp_path) as ledger:
        fill_with_evil(ledger)
        write_score_report(ledger, read_card(pack), tmp_path, studies_a_page=1, show_paths=True)
    page = tmp_path / "report-search.html"
    assert "3 studies</output>" in _shown_by_a_browser(page)  # its policy lets the script run
    text = re.sub(r"<meta http-equiv.*?>", "", page.read_text())
    typing = f'field.value = "{typed}"; field.dispatchEvent(new Event("input"));'
    (tmp_path / "typed.html").write_text(text.replace("</body>", f"<script>{typing}</script></body>"))
    shown = re.findall(r"<tr data-key=[^>]*>", _shown_by_a_browser(tmp_path / "typed.html"))
    assert len(shown) == 3
    assert [re.findall(r'data-key="(\w+)"', row)[0] for row in shown if " hidden" not in row] == keys
