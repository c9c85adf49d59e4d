"""`medclip monitor RESULTS... --reference RESULTS --out DIR`: what changed over weeks, without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medclip.cli import options

HEADINGS = {"reference": "Common options", "threshold": "Figures"}


def monitor(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS...",
            help="Output folders of medclip score or embed, also in a store (s3://...), in order of time.",
            readable=False,
        ),
    ],
    out: options.OutFolder,
    reference: Annotated[
        list[Path] | None,
        typer.Option(
            "--reference",
            metavar="DIR",
            help="Results of before. Repeatable. Default: the first four periods.",
        ),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option("--against", metavar="DIR", help="Results of another pack on the same studies. Repeatable."),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="week|month|run", help="Default: weeks where runs were scored with --weeks."),
    ] = None,
    threshold: Annotated[
        float, typer.Option("--threshold", help="Probability from which a finding is called, with --against.")
    ] = 0.5,
    num_resamples: options.NumResamples = 2000,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> int:
    """Compare results, week by week, with those of before: what fails, what comes in, what the model says. No labels.

    Exit code: 0 nothing changed that is more than small, 3 something did or a decision differs, 2 wrong use, or nothing
    could be compared.
    """
    from medclip.api.monitor import monitor as run
    from medclip.auditing.monitoring.result import FINDINGS_SHOWN, REPORT
    from medclip.cli.progress import progress
    from medclip.cli.table import print_paragraph
    from medclip.errors import printable
    from medclip.wording import count, number

    with progress(quiet=as_json) as shown:
        watched = run(
            results,
            reference=reference or (),
            against=against or (),
            by=by,
            out=out,
            threshold=threshold,
            num_resamples=num_resamples,
            seed=seed,
            progress=shown,
        )
    if as_json:
        print(watched.to_json(), end="")
        return watched.exit_code
    if watched.reference:
        num_compared = sum(row.is_compared for row in watched.periods)
        print(printable(f"{count(num_compared, watched.by)} compared with {watched.reference}."))
    for finding in watched.findings[:FINDINGS_SHOWN]:
        print_paragraph(f"{finding.size + ':':7} ", finding.text)
    if len(watched.findings) > FINDINGS_SHOWN:
        print(f"{number(len(watched.findings) - FINDINGS_SHOWN)} more stand in the page.")
    for note in watched.notes:
        print_paragraph("note:   ", note)
    print(f"Page: {printable(str(out / REPORT))}")
    return watched.exit_code
