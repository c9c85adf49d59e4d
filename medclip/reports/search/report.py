"""Write the hits of a search as one page of small images that loads nothing, runs nothing and names nobody."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from medclip.files.output import write_file
from medclip.reports.html_page import render_page
from medclip.reports.model_card import modality_title
from medclip.retrieval.hits import NO_PROBABILITY, Hit, PatchHit, SearchResult, count_of, z_words
from medclip.version import __version__
from medclip.wording import capital, count, figure, number, percent

_STYLES = ("style.css", "search/page.css")


@dataclass(frozen=True)
class ImageView:
    """One small image."""

    row: int
    data: str
    """Base64 of a JPEG; "" where there is none."""
    withheld: bool
    """The header says that text is burned in."""


@dataclass(frozen=True)
class HitView:
    """One place of the ranking, in words."""

    hit: Hit
    modality: str
    place: str
    """View, side and part of the body."""
    images: tuple[ImageView, ...]
    num_more_images: int
    patch: PatchHit | None = None


def write_search_page(result: SearchResult, path: Path) -> Path:
    """Write the page; it appears whole or not at all, its owner's alone.

    Raises:
        MedclipError: As `medclip.files.output.disk_errors`.
    """
    write_file(path, render(result))
    return path


def render(result: SearchResult) -> str:
    """Render the page. All text is escaped by the template engine."""
    assert result.embeddings is not None
    values = {
        "result": result,
        "hits": [_view(result, hit) for hit in result.hits],
        "pack": result.embeddings.pack,
        "version": __version__,
        "no_probability": NO_PROBABILITY,
        "show_paths": any(not hit.file.startswith((f"file {hit.row} (", f"slide {hit.row}")) for hit in result.hits),
    }
    helpers = {"count": count, "count_of": count_of, "number": number, "figure": figure, "z_words": z_words}
    helpers |= {"capital": capital, "percent": percent}
    return render_page("search/page.html.j2", _STYLES, values, helpers)


def _view(result: SearchResult, hit: Hit) -> HitView:
    images = tuple(
        ImageView(row, base64.b64encode(body or b"").decode(), body is None) for row, body in result.thumbnails(hit)
    )
    place = ", ".join(
        part.lower() if part == hit.body_part else part for part in (hit.view, hit.laterality, hit.body_part) if part
    )
    patch = hit if isinstance(hit, PatchHit) else None
    return HitView(hit, modality_title(hit.modality), place, images, hit.num_images - len(images), patch)
