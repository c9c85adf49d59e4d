"""`medclip search DIR "pleural effusion"`: find studies, or patches of slides, by words, by example, or both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medclip.cli import options

if TYPE_CHECKING:
    from medclip.retrieval.captions import CaptionRanking
    from medclip.retrieval.result import Hit, SearchResult

HEADINGS = {"like": "What is looked for", "where": "Where", "top": "Output"}


def search(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="Folder that medclip embed or medclip slides embed wrote.", readable=False),
    ] = None,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WORDS]...", help="What to look for. Several texts are ways to say the same thing; so are a | b."
        ),
    ] = None,
    like: Annotated[
        list[str] | None,
        typer.Option(
            "--like",
            metavar="FILE|N",
            help="An example: a file, its number in the folder, or a patch as KEY@TOP,LEFT in µm. Repeatable.",
        ),
    ] = None,
    not_: Annotated[
        list[str] | None, typer.Option("--not", metavar="TEXT", help="What not to look for. Repeatable.")
    ] = None,
    captions: Annotated[
        Path | None,
        typer.Option("--captions", metavar="TABLE|FILE", help="Rank these sentences for the example; DIR may go."),
    ] = None,
    model: options.Model = "",
    modality: options.Modality = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="COLUMN=VALUE", help="Look only there; also != < <= > >=. Repeatable."),
    ] = None,
    level: Annotated[
        str | None,
        typer.Option("--level", help="What is ranked: study, unit (file, series), view, or of slides patch."),
    ] = None,
    other_patients: Annotated[
        bool, typer.Option("--other-patients", help="Leave out everything of the example's patient.")
    ] = False,
    include_example: Annotated[bool, typer.Option("--include-example", help="Rank the example itself, too.")] = False,
    top: Annotated[int, typer.Option("--top", help="How many hits.")] = 50,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the hits as .parquet or .csv.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one page with small images of the hits.")
    ] = None,
    engine: Annotated[
        str, typer.Option("--engine", help="exact, or faiss: an approximate index, for many millions.")
    ] = "exact",
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Folder of the slides, for small images of patches.")
    ] = None,
    report_paths: options.ReportPaths = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> int:
    """Find studies in a folder of embeddings, or patches of slides, by words, by example, or both.

    No image of the folder is read. Its pack is found by its name, or named with --model.

    Exit code: 0 hits were found, 2 wrong use, or nothing is left to look at.
    """
    from medclip.api.search import search as run
    from medclip.cli.progress import progress
    from medclip.retrieval.result import SearchResult, write_hits

    _check_outputs(out, html, overwrite, captions)
    with progress(quiet=as_json) as shown:
        result = run(
            folder,  # pyright: ignore[reportArgumentType] (the verb says what goes together)
            words or (),
            like=like or None,
            not_=not_ or (),
            where=where or (),
            top=top,
            level=level,
            model=model or None,
            modality=modality,
            other_patients=other_patients,
            include_example=include_example,
            engine=engine,
            images=images,
            report_paths=report_paths,
            captions=captions,  # pyright: ignore[reportArgumentType]
            progress=shown,
        )
    if out is not None:
        write_hits(out, result.table)
    if html is not None and isinstance(result, SearchResult):
        from medclip.reports.search.report import write_search_page

        write_search_page(result, html)
    if as_json:
        print(result.to_json())
        return 0
    _print(result) if isinstance(result, SearchResult) else _print_captions(result)
    for path in (out, html):
        if path is not None:
            from medclip.errors import printable

            print(f"Written: {printable(str(path))}")
    return 0


def _check_outputs(out: Path | None, html: Path | None, overwrite: bool, captions: Path | None) -> None:
    """Refuse what cannot be written before anything is computed."""
    from medclip.files.output import claim_file

    if out is not None:
        from medclip.retrieval.result import check_table_name

        check_table_name(out)
    if html is not None and captions is not None:
        from medclip.errors import MedclipError, Reason

        raise MedclipError(Reason.WRONG_USE, "captions have no small images.", hint="Write them with --out.")
    for path in (out, html):
        if path is not None:
            claim_file(path, overwrite=overwrite)


def _print_captions(result: CaptionRanking) -> None:
    from medclip.cli.table import print_paragraph, print_table
    from medclip.retrieval.result import NO_PROBABILITY
    from medclip.wording import figure

    figures = ((figure(hit.score, decimals=3), figure(hit.z, decimals=1, signed=True)) for hit in result.hits)
    rows = [[str(hit.rank), *cells, hit.caption] for hit, cells in zip(result.hits, figures, strict=True)]
    print_table(["", "score", "sd from mean", "caption"], rows)
    for note in (*result.notes, NO_PROBABILITY):
        print_paragraph("", note)


def _print(result: SearchResult) -> None:
    from medclip.cli.table import print_paragraph, print_table
    from medclip.retrieval.result import NO_PROBABILITY, PatchHit, count_of
    from medclip.wording import count, figure

    print_paragraph("", f"{count(len(result.hits), 'hit')} among {count_of(result.num_searched, result.noun)}.")
    columns = [name for name in ("spread", "words", "without", "like")
               if any(getattr(hit, name) is not None for hit in result.hits)]  # fmt: skip
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
