"""`medclip view FILE --out x.png`: what a model would see of a file, beside what is stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from medclip.cli import options


def view(
    path: Annotated[Path, typer.Argument(help="File, or folder of one study.", show_default=False, readable=False)],
    out: Annotated[Path, typer.Option("--out", help="The PNG to write.")],
    modality: options.Modality = None,
    model: options.Model = "medclip-mini",
    number: Annotated[int, typer.Option("--number", help="Which image, series or record of a folder, from 1.")] = 1,
    window: Annotated[
        str | None,
        typer.Option(
            "--window", metavar="W", help="DICOM window: a number from 0, its explanation, CENTRE,WIDTH or none."
        ),
    ] = None,
    uneven: options.Uneven = "reject",
    mpp: options.Mpp = None,
    accept_unterminated: options.AcceptUnterminated = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> int:
    """Draw what a model would see of a file or series, beside the raw image, with everything that was done to it.

    Exit code: 0 drawn, 2 it cannot be read, or wrong use.
    """
    from medclip.api.view import view as run
    from medclip.cli.settings_file import command_settings
    from medclip.errors import printable
    from medclip.sample import spoken
    from medclip.settings import read_policy
    from medclip.wording import count

    drawn = run(
        path,
        out,
        modality=modality,
        model=model,
        number=number,
        settings=command_settings(read_policy(uneven, mpp, window, accept_unterminated=accept_unterminated)),
        overwrite=overwrite,
    )
    if as_json:
        fields = {**vars(drawn), "out": str(drawn.out), "headers": dict(drawn.headers)}
        print(json.dumps(fields, default=str))
        return 0
    if drawn.num_found > 1:
        print(f"{drawn.number} of {drawn.num_found}: --number N for another")
    what = f"{spoken(drawn.modality)} {drawn.kind}" if drawn.modality else f"{drawn.kind}, modality not stated"
    print(f"{what}: {count(drawn.num_files, 'file')}, {count(drawn.num_views, 'view')}, adapter {drawn.adapter}")
    for name, detail in drawn.steps:
        print(f"  {name}{': ' if detail else ''}{detail}")
    if drawn.warning:
        print(f"Warning: {drawn.warning}.")
    print(f"Written: {printable(str(drawn.out))}")
    return 0
