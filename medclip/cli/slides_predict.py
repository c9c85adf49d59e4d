"""`medclip slides predict STORE --task T | --head DIR --out DIR`: an answer for each slide, with its map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from medclip.cli import options

HEADINGS = {"out": "Common options", "model": "Zero-shot", "images": "Maps", "overwrite": "Output"}


def predict(
    store: Annotated[Path, typer.Argument(help="Folder that medclip slides embed wrote.")],
    out: options.OutFolder,
    task: options.Task = None,
    head: Annotated[
        Path | None, typer.Option("--head", metavar="DIR", help="Folder that medclip slides learn wrote.")
    ] = None,
    model: options.Model = "medclip-mini",
    top_patches: Annotated[
        int, typer.Option("--top-patches", min=1, metavar="K", help="Patches of each class that stand for the slide.")
    ] = 50,
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="Folder of the slides; without it maps are drawn on their own."),
    ] = None,
    dicom: Annotated[
        bool,
        typer.Option("--dicom", help="Write DICOM parametric maps too; a DICOM slide's names its patient and study."),
    ] = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> int:
    """Answer a question for every slide of a store, in words or by a learned head, and draw what each answer rests on.

    Exit code: 0 no slide failed, 3 some did (they have a row with the reason), 2 wrong use or refused.
    """
    from medclip.cli.progress import progress
    from medclip.errors import printable
    from medclip.result import named_counts
    from medclip.slides.learning.predict import predict as run

    with progress(quiet=as_json) as shown:
        predictions = run(
            store,
            out=out,
            task=task,
            head=head,
            model=model,
            top_patches=top_patches,
            images=images,
            dicom=dicom,
            overwrite=overwrite,
            progress=shown,
        )
    if as_json:
        print(json.dumps({**predictions.to_json(), "exit_code": predictions.exit_code}))
        return predictions.exit_code
    facts = predictions.to_json()
    print(f"{predictions.question}: {named_counts(facts['answers'])}.")
    print(f"Slides: {named_counts(predictions.counts)}.")
    for note in predictions.notes:
        print(note)
    print(f"Answers: {printable(str(out / 'predictions.csv'))}, maps: {printable(str(out / 'maps'))}")
    return predictions.exit_code
