"""The site as a reader sees it: built, and looked at in a browser at the width of a desk and of a telephone."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.docs_site.build import build
from pipelines.docs_site.look import Sight, find_browser, look_at, pages_of
from pipelines.docs_site.picture import shortened

REPOSITORY = Path(__file__).resolve().parents[2]
needs_browser = pytest.mark.skipif(find_browser() is None, reason="needs Chromium. Run: apt-get install chromium")


@pytest.fixture(scope="module")
def site() -> Path:
    """The built site; notebooks that were not run with this code stand there without outputs. CI builds it once."""
    return build()


@pytest.mark.slow
def test_every_notebook_has_a_page(site: Path):
    pages = pages_of(site)
    for notebook in (REPOSITORY / "notebooks").glob("*.py"):
        assert f"notebooks/{notebook.stem}/index.html" in pages


@pytest.mark.slow
def test_examples_of_docstrings_are_code_and_no_quotations(site: Path):
    page = (site / "reference" / "python" / "index.html").read_text()
    assert "<blockquote>" not in page
    assert page.count('<span class="doc-section-title">Examples:</span>') > 20


@pytest.mark.slow
@needs_browser
def test_no_page_is_cut_off_at_the_width_of_a_desk_or_a_telephone_and_none_asks_for_the_network(site: Path):
    pages = pages_of(site)
    sights = look_at(site, pages)
    assert len(sights) == 2 * len(pages)
    assert not [fault for sight in sights for fault in sight.faults()]


@pytest.mark.slow
@needs_browser
def test_what_is_wider_than_the_page_is_seen_unless_it_scrolls_and_so_is_an_image_that_is_not_there(tmp_path: Path):
    wide, scrolls = (
        '<p style="width:900px">wide</p>',
        '<div style="overflow-x:auto"><p style="width:900px">wide</p></div>',
    )
    for name, body in (("wide", wide), ("scrolls", scrolls), ("image", '<img src="absent.png">')):
        (tmp_path / f"{name}.html").write_text(f"<!doctype html><title>{name}</title><article>{body}</article>")
    sights = {sight.title: sight for sight in look_at(tmp_path, pages_of(tmp_path), (390,))}
    assert "p to 9" in sights["wide"].faults()[0]
    assert not sights["scrolls"].faults()
    assert sights["image"].faults() == ["image.html at 390 px: the image absent.png is not there"]


def test_a_page_that_is_as_it_should_be_has_no_faults():
    fine = Sight("index.html", 390, 390, (), (), (), "")
    assert not fine.faults()
    assert Sight("index.html", 390, 420, (), (), (), "").faults() == [
        "index.html at 390 px: the page scrolls sideways, 420 px"
    ]


def test_the_picture_of_the_report_has_one_study_of_each_modality() -> None:
    studies = [
        f'<article class="study" id="study-{n}"><img src="x" alt="{modality}, file {n}"></article>\n'
        for n, modality in enumerate(("CT", "X-ray", "CT", "ECG", "X-ray"), 1)
    ]
    page = f"<h1>Five</h1><h2>Studies</h2>\n<p>In the order of their files.</p>\n{''.join(studies)}<h2>Not scored</h2>"
    kept = "".join(studies[n] for n in (0, 1, 3))
    assert shortened(page) == f"<h1>Five</h1><h2>Studies</h2>\n{kept}<h2>Not scored</h2>"
