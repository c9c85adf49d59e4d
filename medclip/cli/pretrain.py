"""`medclip pretrain`: train a model from a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medclip.cli import options

if TYPE_CHECKING:
    from medclip.training.result import PretrainResult


def pretrain(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    overrides: options.Overrides = None,
    out: options.OutFolderOrNone = None,
    resume: options.Resume = True,
    as_json: options.Json = False,
) -> int:
    """Train a model of images and text, or of images alone, from a recipe and write it as a model pack.

    Run again to go on after a stop.

    The folder is --out, else the recipe's `out`, else runs/NAME. A value of the recipe is changed by its path, such as
    --set train.lr=1e-4.

    Several processes or machines: torchrun --nproc-per-node N -m medclip.cli.main pretrain RECIPE --out FOLDER

    Exit code: 0 trained, 2 wrong use or refused, 130 stopped by Ctrl-C or SIGTERM after a checkpoint.
    """
    from medclip.api.pretrain import pretrain as run
    from medclip.cli import ranks
    from medclip.cli.progress import progress
    from medclip.errors import MedclipError
    from medclip.exit_codes import ExitCode, exit_code

    speaks = ranks.speaks()
    try:
        with progress(quiet=as_json or not speaks) as shown:
            result = run(recipe, overrides=overrides or (), out=out, resume=resume, progress=shown)
    except MedclipError as error:
        if speaks:
            raise
        return exit_code(error.reason)
    if speaks:
        _print(result, as_json)
    return ranks.leave(ExitCode.COMPLETE if result.pack is not None else ExitCode.INTERRUPTED)


def _print(result: PretrainResult, as_json: bool) -> None:
    import json

    from medclip.errors import printable
    from medclip.wording import count

    if as_json:
        values = {
            "out": str(result.out),
            "steps": result.steps,
            "total_steps": result.total_steps,
            "pack": str(result.pack) if result.pack else None,
            "validation": dict(result.validation),
            "test": [dict(row) for row in result.test],
            "report": str(result.report) if result.report else None,
        }
        print(json.dumps(values))
    elif result.pack is not None:
        print(f"{count(result.steps, 'step')} done. The model pack is in {printable(str(result.pack))}.")
        print(f"Look at it with: medclip models show {printable(str(result.pack))}")
        print(f"The report of the run is {printable(str(result.report))}.")
    else:
        print(
            f"Stopped after {result.steps} of {result.total_steps} steps; "
            f"a checkpoint is in {printable(str(result.out))}. "
            "Run the same command again to go on."
        )
