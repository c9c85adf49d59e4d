"""`medclip evaluate --model PACK --suite NAME --data FOLDER`: measure a model zero-shot on labelled sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medclip.cli import options


def evaluate(
    data: Annotated[Path, typer.Option("--data", help="Folder with one folder for each set of the suite.")],
    model: options.Model = "medclip-mini",
    suite: Annotated[
        str, typer.Option("--suite", metavar="NAME|FILE", help="A suite that comes with medclip, or a YAML file.")
    ] = "unimed",
    out: options.OutFolderOrNone = None,
    sets: Annotated[
        str, typer.Option("--sets", metavar="A,B", help="Measure these sets only. Default: all that are there.")
    ] = "",
    device: options.Device = "cpu",
    batch_size: options.BatchSize = None,
    workers: options.Workers = None,
    memory: options.Memory = None,
    num_resamples: options.NumResamples = 2000,
    key_file: options.KeyFile = None,
    images: options.Images = None,
    prompt_sensitivity: Annotated[
        bool,
        typer.Option(
            "--prompt-sensitivity", help="Measure each wording of the prompts as well, and whether 'no' counts."
        ),
    ] = False,
    compare: Annotated[
        str | None,
        typer.Option("--compare", metavar="PACK", help="Measure another pack on the same images; paired differences."),
    ] = None,
    compare_images: Annotated[
        Path | None,
        typer.Option("--compare-images", metavar="DIR", help="What medclip embed wrote of --data with that pack."),
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Measure a model zero-shot on a suite of labelled sets, as far as their data is there.

    With --out, evaluate.json and predictions.parquet are written there, and the same command goes on where it stopped.

    Exit code: 0 all images were read, 3 some were not (they are counted by reason) or a set does not fit the suite (it
    is named), 2 wrong use or no set can be measured.
    """
    from medclip.api.evaluate import evaluate as run
    from medclip.cli.progress import progress
    from medclip.errors import printable
    from medclip.exit_codes import ExitCode

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
            memory=memory,
            num_resamples=num_resamples,
            key_file=key_file,
            images=images,
            progress=shown,
            prompt_sensitivity=prompt_sensitivity,
            compare=compare,
            compare_images=compare_images,
        )
    if as_json:
        print(result.to_json(), end="")
    else:
        for line in result.lines():
            print(printable(line))
        if result.folder is not None:
            print(f"Results: {printable(str(result.folder))}")
    return ExitCode.SOME_FAILED if result.num_problems or result.unusable else 0
