"""`medclip runs ...`: what can be done to the output folders of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from medclip.cli import options


def merge(
    shards: Annotated[
        list[Path], typer.Argument(help="Output folders of all shards, also in a store (s3://...).", show_default=False)
    ],
    out: options.OutFolder,
    workers: options.Workers = None,
    memory: options.Memory = None,
    as_json: options.Json = False,
) -> int:
    """Merge the shards of a run. The result is, to the byte, that of one machine. The same command goes on.

    Exit code: 0 all scored or skipped, 3 some failed, 2 wrong use or refused.
    """
    from medclip.api.merge import merge as merge_runs
    from medclip.cli.progress import progress
    from medclip.cli.run_reasons import interrupted
    from medclip.errors import printable
    from medclip.wording import count

    try:
        with progress(quiet=as_json) as shown:
            run = merge_runs(shards, out, workers=workers, memory=memory, progress=shown)
    except KeyboardInterrupt:
        return interrupted(out)
    if as_json:
        print(json.dumps({"out": str(run.folder), "exit_code": run.exit_code, **run.counts}))
        return run.exit_code
    files = count(run.counts["files"], "file")
    print(f"{count(len(shards), 'shard')} merged: {files} in {count(run.counts['studies'], 'study')}.")
    print(f"Results: {printable(str(run.folder))}")
    return run.exit_code


def purge(
    folder: Annotated[
        Path, typer.Argument(help="Output folder of a run, or a folder that holds such.", show_default=False)
    ],
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", metavar="AGE", help="Only runs that were finished so long ago: 12h, 30d, 4w."),
    ] = None,
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails", help="Small images, and the pages of the report, which show them.")
    ] = False,
    ledger: Annotated[
        bool, typer.Option("--ledger", help="What the ledger knows: no command goes on with the run any more.")
    ] = False,
    embeddings: Annotated[
        bool, typer.Option("--embeddings", help="Vectors: no question can be put to them any more.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove; without it, what could be removed is listed.")] = False,
    as_json: options.Json = False,
) -> int:
    """Remove what runs have beside their tables: small images, vectors, rows of the ledger.

    Exit code: 0 all removed or listed, 3 some runs are kept (they go on, are not finished, or are shards), 2 wrong use.
    """
    from medclip.errors import printable
    from medclip.runs.operations.purge import purge as run
    from medclip.wording import count

    purged = run(
        folder, older_than=older_than, thumbnails=thumbnails, ledger=ledger, embeddings=embeddings, yes=yes
    )  # fmt: skip
    if as_json:
        print(json.dumps(purged.to_dict()))
        return purged.exit_code
    for one in purged.runs:
        sizes = ", ".join(f"{kind} {size / 1e6:.1f} MB" for kind, size in one.size_bytes.items())
        kept = f"; kept: {one.kept}" if one.kept else ""
        print(f"{printable(str(one.folder))}: {one.age_days:.0f} days old; {sizes}{kept}")
    affected = count(sum(not one.kept for one in purged.runs), "run")
    if purged.is_done:
        print(f"Removed from {affected}: {purged.size_bytes / 1e6:.1f} MB.")
    else:
        print(
            f"{affected}, {purged.size_bytes / 1e6:.1f} MB. Nothing was removed; --yes with what is named removes it."
        )
    return purged.exit_code
