"""`medclip captions from-labels`: make image-text pairs of a set that has labels only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medclip.cli import options

if TYPE_CHECKING:
    from medclip.shards.writing.captions import CaptionsReport


def from_labels(
    labels: Annotated[
        Path, typer.Argument(help="CSV, TSV or Parquet, whatever its suffix; with labels, as for `shards build`.")
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Table to write (.csv, .tsv, .parquet): the same with a column `captions`.")
    ],
    n: Annotated[int, typer.Option("--n", min=1, help="Captions for each row.")] = 10,
    seed: options.Seed = 0,
    writer: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="A function of yours that writes captions; each is checked."),
    ] = None,
    images: options.Images = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Write captions that say what the labels of each row say, as a column of a copy of the table.

    Exit code: 0 done, 2 wrong use or refused.
    """
    from medclip.cli.progress import progress
    from medclip.shards.writing.captions import captions_from_labels
    from medclip.text.captions.caption_writer import load_writer

    with progress(quiet=as_json) as shown:
        report = captions_from_labels(
            labels,
            out,
            n=n,
            seed=seed,
            writer=load_writer(writer) if writer else None,
            images=images,
            overwrite=overwrite,
            progress=shown,
        )
    _print(report, as_json, wrote=writer is not None)


def _print(report: CaptionsReport, as_json: bool, *, wrote: bool) -> None:
    from medclip.errors import printable
    from medclip.wording import count

    if as_json:
        import json
        from dataclasses import asdict

        print(json.dumps(asdict(report) | {"out": str(report.out)}, indent=2))
        return
    print(
        f"{printable(str(report.out))}: {count(report.num_captions, 'caption')} for {report.num_captioned} of "
        f"{count(report.num_rows, 'row')}."
    )
    if report.num_without_labels:
        print(f"  {count(report.num_without_labels, 'row')} without labels, left as they were.")
    if report.num_moved:
        print(f"  {count(report.num_moved, 'path')} in `file` rewritten, relative to the new table's folder.")
    if report.num_short:
        print(f"  {count(report.num_short, 'row')} with fewer captions: the labels have no more wordings.")
    if wrote:
        print(f"  {count(report.num_by_writer, 'caption')} by the writer itself.")
        for reason, number in sorted(report.rejected_by_reason.items(), key=lambda kv: -kv[1]):
            print(f"  {number:>7} replaced: {reason}")
