"""`medclip scan PATH`: list what a folder holds, how it would be read, and the problems."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from medclip.cli import options


def scan(
    path: Annotated[Path, typer.Argument(help="File or folder to look at.", show_default=False, readable=False)],
    table: options.Table = None,
    modality: options.Modality = None,
    group_by: options.GroupBy = "auto",
    hash_paths: options.HashPaths = False,
    as_json: options.Json = False,
) -> int:
    """List what a folder holds, how it would be read and the problems, without decoding pixels.

    Exit code: 0 all could be scored or are skipped, 3 some failed, 2 wrong use or nothing to look at.
    """
    from medclip.api.scan import scan as run
    from medclip.cli.progress import forgiving_stderr, progress
    from medclip.exit_codes import ExitCode
    from medclip.reports.scan_text import scan_json, scan_text

    with progress(quiet=not forgiving_stderr().isatty()) as shown:
        result = run(path, table=table, modality=modality, group_by=group_by, hash_paths=hash_paths, progress=shown)
    print(json.dumps(scan_json(result)) if as_json else scan_text(result))
    return ExitCode.SOME_FAILED if result.counts("status").get("failed") else ExitCode.COMPLETE
