"""`medclip embed PATH --out DIR`: compute vectors of a file or folder of studies, once for many questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from medclip.cli import options
from medclip.cli.run_reasons import EMBED_REMEDIES, interrupted, print_planned, print_reasons

HEADINGS = {"out": "Common options", "table": "How files are read", "hash_paths": "Output", "dry_run": "Unattended"}


def embed(
    path: Annotated[
        Path,
        typer.Argument(
            help="File or folder to embed, or a PACS: dicomweb://HOST:PORT/PATH.", show_default=False, readable=False
        ),
    ],
    out: options.OutFolder,
    model: options.Model = "medclip-mini",
    workers: options.Workers = None,
    memory: options.Memory = None,
    device: options.Device = "cpu",
    batch_size: options.BatchSize = None,
    backend: options.Backend = None,
    engine: options.Engine = "local",
    shard: options.Shard = None,
    dtype: Annotated[
        str, typer.Option("--dtype", metavar="TYPE", help="How vectors are stored: float32 or float16.")
    ] = "float32",
    table: options.Table = None,
    query: options.Query = "",
    spool: options.Spool = None,
    modality: options.Modality = None,
    min_confidence: options.MinConfidence = 0.8,
    group_by: options.GroupBy = "auto",
    uneven: options.Uneven = "reject",
    mpp: options.Mpp = None,
    accept_unterminated: options.AcceptUnterminated = False,
    key_file: options.KeyFile = None,
    add: options.Add = False,
    retry_failed: options.RetryFailed = None,
    hash_paths: options.HashPaths = False,
    weeks: options.Weeks = False,
    thumbnails: options.Thumbnails = True,
    dry_run: options.DryRun = False,
    work: options.Work = None,
    limit: options.Limit = None,
    log: options.Log = None,
    metrics: options.Metrics = None,
    as_json: options.Json = False,
) -> int:
    """Compute the vectors of a file or folder of studies. The same command goes on after a stop.

    The folder that it writes stands in the place of the files for score, search, adapt, evaluate and audit: a new
    question reads no image. It is personal data, as the images are.

    Exit code: 0 all embedded or skipped, 3 some failed, 2 wrong use or refused.
    """
    from medclip.api.embed import embed as run_embed
    from medclip.cli.progress import progress
    from medclip.cli.settings_file import command_settings
    from medclip.settings import read_policy

    try:
        with progress(quiet=as_json) as shown:
            embeddings = run_embed(
                path,
                out,
                work=work,
                query=query,
                spool=spool,
                model=model,
                dtype=dtype,
                table=table,
                modality=modality,
                min_confidence=min_confidence,
                group_by=group_by,  # pyright: ignore[reportArgumentType] (checked by ScoreOptions)
                workers=workers,
                memory=memory,
                add=add,
                retry_failed=retry_failed,
                hash_paths=hash_paths,
                weeks=weeks,
                thumbnails=thumbnails,
                key_file=key_file,
                device=device,
                batch_size=batch_size,
                backend=backend,
                dry_run=dry_run,
                limit=limit,
                log=log,
                metrics=metrics,
                engine=engine,
                shard=shard,
                settings=command_settings(read_policy(uneven, mpp, accept_unterminated=accept_unterminated)),
                progress=shown,
            )
    except KeyboardInterrupt:
        return interrupted(work or out)
    print_embeddings(embeddings, as_json)
    return embeddings.exit_code


def print_embeddings(embeddings: Any, as_json: bool) -> None:
    """Print how a run ended and where its vectors are."""
    counts = embeddings.counts
    if as_json:
        sizes = {"views": embeddings.num_views, "units": embeddings.num_units, "dim": embeddings.dim}
        planned = {} if embeddings.planned is None else {"planned": embeddings.planned}
        published = {} if embeddings.published is None else {"published": embeddings.published}
        out = {"out": str(embeddings.folder), "exit_code": embeddings.exit_code, **counts, **sizes, **planned}
        out |= published
        print(json.dumps(out))
        return
    if embeddings.planned is not None:
        print_planned(embeddings, EMBED_REMEDIES)
        return
    if embeddings.already_finished:
        print("This run was finished before; nothing was computed again.")
    from medclip.errors import printable
    from medclip.wording import count, number

    parts = [f"{count(counts['files'], 'file')}: {number(counts['embedded'])} embedded in "
             f"{count(counts['studies'], 'study')}"]  # fmt: skip
    parts += [f"{number(counts[status])} {status}" for status in ("skipped", "failed") if counts[status]]
    print(f"{', '.join(parts)}.")
    if embeddings.shard is not None:
        print(f"Shard {embeddings.shard}. When all are finished: medclip runs merge DIR... --out DIR")
        return
    print_reasons(embeddings.files, EMBED_REMEDIES)
    print(
        f"Vectors: {number(embeddings.num_views)} of {embeddings.dim} numbers, in {printable(str(embeddings.folder))}"
    )
    if embeddings.published is not None:
        print(f"Published: {printable(embeddings.published)}")
