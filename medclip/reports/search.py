"""Write the hits of a search as one page of small images that loads nothing, runs nothing and names nobody."""

from __future__ import annotations

import base64
from pathlib import Path

from medclip.files.output import write_file
from medclip.reports.html_page import render_page
from medclip.reports.model_card import modality_title
from medclip.retrieval.hits import NO_PROBABILITY, Hit, PatchHit, SearchResult, count_of, z_words
from medclip.version import __version__

_STYLES = ("style.css", "search.css")


def write_search_page(result: SearchResult, path: Path) -> Path:
    """Write the page; it appears whole or not at all, its owner's alone."""
    write_file(path, render(result))
    return path


def render(result: SearchResult) -> str:
    """Render the page. All text is escaped by the template engine."""
    assert result.embeddings is not None
    values = {
        "result": result,
        "hits": [(hit, _place(hit), _images(result, hit), isinstance(hit, PatchHit)) for hit in result.hits],
        "pack": result.embeddings.pack,
        "version": __version__,
        "no_probability": NO_PROBABILITY,
        "show_paths": any(not hit.file.startswith((f"file {hit.row} (", f"slide {hit.row}")) for hit in result.hits),
        "count_of": count_of,
        "z_words": z_words,
        "modality_title": modality_title,
    }
    return render_page("search.html.j2", _STYLES, values)


def _images(result: SearchResult, hit: Hit) -> list[str | None]:
    """Return the small images of a hit in base64: "" where none is kept, None where text is burned in."""
    return [None if body is None else base64.b64encode(body).decode() for _, body in result.thumbnails(hit)]


def _place(hit: Hit) -> str:
    """Name view, side and part of the body."""
    body_part = hit.body_part.lower() if hit.body_part else ""
    return ", ".join(part for part in (hit.view, hit.laterality, body_part) if part)
