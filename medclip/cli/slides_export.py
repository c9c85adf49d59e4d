"""`medclip slides export STORE --out DIR`: the patches of slides as AnnData files or SpatialData folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from medclip.cli import options

HEADINGS = {"out": "Common options", "format": "Output"}


def export(
    store: Annotated[Path, typer.Argument(help="Folder that medclip slides embed wrote.")],
    out: options.OutFolder,
    format: Annotated[
        str,
        typer.Option(
            "--format", metavar="NAME", help="anndata (.h5ad), or spatialdata (.zarr), which LazySlide opens."
        ),
    ] = "anndata",
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> int:
    """Write the vectors and places of patches for other programs, one file or folder for each slide.

    Exit code: 0 no slide failed, 3 some did (they have a row with the reason), 2 wrong use or refused.
    """
    from medclip.cli.progress import progress
    from medclip.errors import printable
    from medclip.result import named_counts
    from medclip.slides.exchange.export import export as run

    with progress(quiet=as_json) as shown:
        result = run(store, out, format=format, overwrite=overwrite, progress=shown)
    if as_json:
        print(json.dumps({**result.to_json(), "exit_code": result.exit_code}))
        return result.exit_code
    print(f"Slides: {named_counts(result.counts)}, as {result.format}.")
    print(f"Which slide a key is: {printable(str(out / 'slides.csv'))}")
    return result.exit_code
