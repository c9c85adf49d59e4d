"""`medclip evaluate --model PACK --suite NAME --data FOLDER`: measure a model zero-shot on labelled sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SOME_FAILED = 3


def evaluate(
    data: Annotated[
        Path, typer.Option("--data", help="Folder with one folder for each set of the suite.", show_default=False)
    ],
    model: Annotated[
        str, typer.Option("--model", metavar="PACK", help="Name or folder of a model pack.")
    ] = "medclip-mini",
    suite: Annotated[
        str, typer.Option("--suite", metavar="NAME|FILE", help="A suite that comes with medclip, or a YAML file.")
    ] = "unimed",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for evaluate.json and predictions.parquet; run again to go on in it."),
    ] = None,
    sets: Annotated[
        str, typer.Option("--sets", metavar="A,B", help="Measure these sets only. Default: all that are there.")
    ] = "",
    device: Annotated[str, typer.Option("--device", help="Torch device.")] = "cpu",
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", min=1, help="Images in one forward pass (default: 4).", show_default=False),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Reading processes (default: one per core).", show_default=False),
    ] = None,
    num_resamples: Annotated[int, typer.Option("--num-resamples", min=1, help="Resamples of patients.")] = 2000,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", help="Identity key that patients are hashed with.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> int:
    """Measure a model zero-shot on a suite of labelled sets, as far as their data is there.

    Exit code: 0 all images were read, 3 some were not (they are counted by reason) or a set does not fit the suite (it
    is named), 2 wrong use or no set can be measured.
    """
    from medclip.api.evaluate import evaluate as run
    from medclip.cli.progress import progress
    from medclip.errors import printable

    with progress(quiet=as_json) as shown:
        result = run(
            data,
            model=model,
            suite=suite,
            out=out,
            sets=[name.strip() for name in sets.split(",") if name.strip()],
            device=device,
            batch_size=batch_size,
            workers=workers,
            num_resamples=num_resamples,
            key_file=key_file,
            progress=shown,
        )
    if as_json:
        print(result.to_json(), end="")
    else:
        for line in result.lines():
            print(line)
        if result.folder is not None:
            print(f"Results: {printable(str(result.folder))}")
    return SOME_FAILED if result.num_problems or result.unusable else 0
