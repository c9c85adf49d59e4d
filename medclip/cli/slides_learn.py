"""`medclip slides learn STORE --labels TABLE --label COLUMN --out DIR`: a head for whole slides, by patient."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from medclip.cli import options

HEADINGS = {
    "labels": "Common options",
    "patient": "Table and patients",
    "pooling": "How it learns",
    "overwrite": "Output",
}


def learn(
    store: Annotated[Path, typer.Argument(help="Folder that medclip slides embed wrote.")],
    labels: options.Labels,
    out: options.OutFolder,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            metavar="COLUMN",
            help="Column of class names, or one of 0 and 1. May be repeated, for several findings.",
        ),
    ] = None,
    years: Annotated[
        int,
        typer.Option("--years", min=0, help="Learn the risk of an event instead: event_months and followup_months."),
    ] = 0,
    patient: options.Patient = None,
    task: options.Task = None,
    key_file: options.KeyFile = None,
    pooling: Annotated[str, typer.Option("--pooling", help="mean, abmil or acmil.")] = "abmil",
    against: Annotated[
        list[str] | None,
        typer.Option("--against", metavar="POOLING", help="Measure this pooling on the same folds. May be repeated."),
    ] = None,
    folds: Annotated[int, typer.Option("--folds", min=2, help="Of the cross-validation by patient, at most.")] = 5,
    seed: options.Seed = 0,
    num_resamples: options.NumResamples = 2000,
    overrides: options.Overrides = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> int:
    """Learn a head that answers for whole slides, and measure it on patients that were left out.

    Exit code: 0 done, 2 wrong use or refused.
    """
    from medclip.cli.progress import progress
    from medclip.exit_codes import ExitCode
    from medclip.slides.learning.learn import learn as run

    with progress(quiet=as_json) as shown:
        learned = run(
            store,
            labels,
            label or (),
            out=out,
            pooling=pooling,
            against=against or (),
            patient=patient,
            task=task,
            years=years,
            folds=folds,
            seed=seed,
            num_resamples=num_resamples,
            overrides=overrides or (),
            key_file=key_file,
            overwrite=overwrite,
            progress=shown,
        )
    if as_json:
        print(json.dumps(learned.to_json()))
        return ExitCode.COMPLETE
    _print(learned, out)
    return ExitCode.COMPLETE


def _print(learned: object, out: Path) -> None:
    from medclip.errors import printable
    from medclip.slides.learning.learn import LearnedSlides
    from medclip.wording import count, estimate

    assert isinstance(learned, LearnedSlides)
    print(f"Learned from {count(learned.num_slides, 'slide')} of {count(learned.num_patients, 'patient')}.")
    for row in learned._rows():
        what = row["pooling"] if row["minus"] is None else f"{row['pooling']} minus {row['minus']}"
        print(f"{what}, {row['metric']}: {estimate(row['value'], row['low'], row['high'])}")
    for note in learned.notes:
        print(note)
    print(f"Head: {printable(str(out))}")
