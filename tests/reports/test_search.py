"""The page of a search: everything escaped, nothing loaded, images with burned-in text held back."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from pathlib import Path

from medclip.embeddings.open_embeddings import open_embeddings
from medclip.reports.search import render, write_search_page
from tests.kits.embeddings import make_units, write_store
from tests.kits.pages import run_together
from tests.retrieval.test_folder_search import DIM, search

HOSTILE = "<script>alert('x')</script>"


def store(folder: Path):
    units = [replace(u, study=f"s{n // 6}", burned_in=n == 3, view="PA") for n, u in enumerate(make_units(12, DIM))]
    return open_embeddings(
        write_store(folder, units, thumbnails=[(u.row, b"jpeg %d" % u.row) for u in units if u.row != 4])
    )


def test_the_page_shows_hits_in_their_order_and_withholds_what_has_burned_in_text(tmp_path: Path) -> None:
    result = search(store(tmp_path / "e"), [HOSTILE, "b"], not_="c", like=1, level="unit" + "s", num_hits=11)
    page = render(result)
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    assert "default-src &#39;none&#39;" in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert [int(n) for n in re.findall(r'id="hit-(\d+)"', page)] == list(range(1, 12))
    assert page.count('class="withheld"') == 1
    assert base64.b64encode(b"jpeg 2").decode() in page
    assert not run_together(page)
    assert ".png" not in page
    assert "000002.png" in render(search(store(tmp_path / "f"), "a", level="units", report_paths=True))


def test_a_study_shows_its_first_images_and_how_many_more_there_are(tmp_path: Path) -> None:
    path = write_search_page(search(store(tmp_path / "e"), "a"), tmp_path / "page.html")
    page = path.read_text()
    assert page.count("<figure>") == 8
    assert page.count("and 2 more images") == 2
    assert path.stat().st_mode & 0o777 == 0o600
