"""`medclip status DIR`: how far a run is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from medclip.cli import options


def status(
    folder: Annotated[Path, typer.Argument(help="Output folder of a run.", show_default=False)],
    as_json: options.Json = False,
) -> int:
    """Show how far a run is, also while it goes on.

    Exit code: 0 finished, 3 finished and some files failed, 4 stopped (the same command goes on), 5 running.
    """
    from medclip.errors import printable
    from medclip.runs.operations.run_status import read_status
    from medclip.wording import count

    read = read_status(folder)
    if as_json:
        print(json.dumps(read.to_dict()))
        return read.exit_code
    counts = read.counts
    print(f"{printable(str(read.folder))}: {read.state}")
    if "ledger" in read.purged:
        print("medclip runs purge removed what the ledger knew of its files; files.parquet has their rows.")
        return read.exit_code
    print(f"{counts['files']} of {read.num_listed} files that are listed have their row; {counts['studies']} studies")
    print(read.ended)
    if read.pace is not None:
        print(read.pace)
    if read.num_tried_again:
        print(f"{count(read.num_tried_again, 'file was', 'files were')} read more than once")
    if read.num_halved:
        print(f"{count(read.num_halved, 'batch', 'batches')} did not fit into memory; halves were computed")
    for ended, reason, number in read.reasons:
        print(f"  {number:>7} {ended}: {reason.replace('_', ' ')}")
    return read.exit_code
