"""`medclip search DIR "pleural effusion"`: find studies, or patches of slides, by words, by example, or both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medclip.api.search import search as verb
from medclip.cli.derive import derive

if TYPE_CHECKING:
    from medclip.retrieval.hits import Hit


def print_search(result: Any, as_json: bool, named: Any) -> None:
    """Print the hits, what must be read with them, and what was written."""
    if as_json:
        print(result.to_json())
        return
    _print_hits(result)
    print_written(named.get("out"), named.get("html"))


def print_written(*paths: object) -> None:
    """Print which files were written; None for what was not."""
    from medclip.errors import printable

    for path in paths:
        if path is not None:
            print(f"Written: {printable(str(path))}")


def _print_hits(result: Any) -> None:
    from medclip.cli.table import print_paragraph, print_table
    from medclip.retrieval.hits import NO_PROBABILITY, PatchHit, count_of
    from medclip.wording import count, figure

    print_paragraph("", f"{count(len(result.hits), 'hit')} among {count_of(result.num_searched, result.noun)}.")
    columns = [
        name
        for name in ("spread", "words", "without", "like")
        if any(getattr(hit, name) is not None for hit in result.hits)
    ]
    if len({"words", "without", "like"} & set(columns)) == 1:  # it is the score
        columns = [name for name in columns if name == "spread"]

    def cells(hit: Hit) -> list[str]:
        image = f", image {hit.image}" if hit.image else f", {hit.num_images} images" if hit.num_images > 1 else ""
        shown = [" ".join(part for part in (hit.view, hit.laterality, hit.body_part) if part)]
        figures = [figure(getattr(hit, name), decimals=3) for name in columns]
        scores = [figure(hit.score, decimals=3), figure(hit.z, decimals=1, signed=True)]
        first = [str(hit.rank), *scores, *figures]
        if isinstance(hit, PatchHit):
            return [*first, hit.file, hit.name, f"{hit.x_px},{hit.y_px}", hit.patient or ""]
        return [*first, hit.modality, *shown, f"{hit.file}{image}", hit.study]

    names = {"words": "words", "spread": "± phrasings", "without": "not", "like": "example"}
    rest = ["modality", "shows", "file", "study"]
    if isinstance(result.hits[0], PatchHit):
        rest = ["file", "slide@top,left µm", "x,y px", "patient"]
    head = ["", "score", "sd from mean", *(names[name] for name in columns), *rest]
    print_table(head, [cells(hit) for hit in result.hits])
    for note in (*result.notes, NO_PROBABILITY):
        print_paragraph("", note)


search = derive(verb, print_search, exit_codes="0 hits were found")
