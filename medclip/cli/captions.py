"""`medclip captions`: make image-text pairs of sets that have labels only, or tables of what radiologists found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medclip.cli import options

if TYPE_CHECKING:
    from medclip.shards.writing.captions import CaptionsReport
    from medclip.shards.writing.ecg_captions import EcgCaptions
    from medclip.shards.writing.mammography_captions import MammographyCaptions


_Number = Annotated[int, typer.Option("--n", min=1, help="Captions for each row.")]
_Writer = Annotated[
    str | None,
    typer.Option(metavar="MODULE:FUNCTION", help="A function of yours that writes captions; each is checked."),
]
_Dataset = Annotated[
    str | None, typer.Option("--dataset", metavar="NAME", help="The set. Default: told from the columns.")
]
_Place = Annotated[
    str | None,
    typer.Option("--file", metavar="PLACE", help='Where a file lies, by columns: "{study_id}/{image_id}.png".'),
]


def from_labels(
    labels: Annotated[
        Path, typer.Argument(help="CSV, TSV or Parquet, whatever its suffix; with labels, as for `shards build`.")
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Table to write (.csv, .tsv, .parquet): the same with a column `captions`.")
    ],
    n: _Number = 10,
    seed: options.Seed = 0,
    writer: _Writer = None,
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


def from_mammography(
    table: Annotated[
        Path,
        typer.Argument(help="The set's own table: VinDr-Mammo, RSNA, CBIS-DDSM, CDD-CESM, EMBED, INbreast, your own."),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Table to write (.csv, .tsv, .parquet): one row an image, for `shards build`.")
    ],
    dataset: _Dataset = None,
    findings: Annotated[
        Path | None, typer.Option("--findings", metavar="TABLE", help="Second table, one row a finding (EMBED).")
    ] = None,
    file: _Place = None,
    n: _Number = 10,
    seed: options.Seed = 0,
    writer: _Writer = None,
    images: options.Images = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Write a table of mammograms with their labels, and reports that say what the set's table states of each breast.

    Exit code: 0 done, 2 wrong use or refused.
    """
    from medclip.cli.progress import progress
    from medclip.shards.writing.mammography_captions import captions_from_mammography
    from medclip.text.captions.caption_writer import load_writer

    with progress(quiet=as_json) as shown:
        report = captions_from_mammography(
            table,
            out,
            dataset=dataset,
            findings=findings,
            file=file,
            n=n,
            seed=seed,
            writer=load_writer(writer) if writer else None,
            images=images,
            overwrite=overwrite,
            progress=shown,
        )
    if not as_json:
        _print_set(report)
    _print(report, as_json, wrote=writer is not None)


def from_ecg(
    table: Annotated[
        Path,
        typer.Argument(help="The set's own table: PTB-XL, MIMIC-IV-ECG, CPSC2018 or Chapman-Shaoxing."),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Table to write (.csv, .tsv, .parquet): one row a record, for `shards build`.")
    ],
    dataset: _Dataset = None,
    file: _Place = None,
    n: _Number = 3,
    language: Annotated[str, typer.Option("--language", help="Of the written reports: en or de.")] = "en",
    min_likelihood: Annotated[
        float,
        typer.Option(
            "--min-likelihood",
            min=0,
            max=100,
            help="Diagnoses of PTB-XL below it count as absent. 0: every listed statement is present.",
        ),
    ] = 0.0,
    seed: options.Seed = 0,
    images: options.Images = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Write a table of ECG records with labels of the six ECG tasks, their cleaned reports, and reports of their codes.

    Exit code: 0 done, 2 wrong use or refused.
    """
    from medclip.cli.progress import progress
    from medclip.shards.writing.ecg_captions import captions_from_ecg

    with progress(quiet=as_json) as shown:
        report = captions_from_ecg(
            table,
            out,
            dataset=dataset,
            file=file,
            n=n,
            language=language,
            min_likelihood=min_likelihood,
            seed=seed,
            images=images,
            overwrite=overwrite,
            progress=shown,
        )
    if not as_json:
        _print_records(report)
    _print(report, as_json, wrote=False)


def _print_records(report: EcgCaptions) -> None:
    from medclip.wording import count

    print(f"{report.dataset}: {count(report.num_rows, 'record')}.")
    if report.num_reports:
        by_language = ", ".join(f"{name} {number}" for name, number in report.languages.items())
        print(f"  {count(report.num_reports, 'report')} of the set stay, cleaned ({by_language}).")
    for reason, number in report.left_out.items():
        print(f"  {number:>7} left out: {reason}")
    for note in report.notes:
        print(f"  {note}")


def _print_set(report: MammographyCaptions) -> None:
    from medclip.wording import count

    print(f"{report.dataset}: {count(report.num_source_rows, 'row')}, {count(report.num_rows, 'image')}.")
    if report.num_reports:
        print(f"  {count(report.num_reports, 'image')} with a radiologist's own words, in `report`.")
    for reason, number in report.set_aside.items():
        print(f"  {number:>7} set aside: {reason}")
    for note in report.notes:
        print(f"  {note}")


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
