"""`medclip pathgen FOLDER --out DIR`: patches of slides with captions, as shards to train on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from medclip.cli import options

HEADINGS = {"agent": "Who writes", "organ": "What is looked for", "size_px": "Patches", "workers": "Machine and output"}


def pathgen(
    path: Annotated[Path, typer.Argument(help="Slide, or folder with slides.", show_default=False, readable=False)],
    out: options.OutFolder,
    model: options.Model = "medclip-mini",
    agent: Annotated[
        str, typer.Option("--agent", help="measured (nuclei and stain, by rule), endpoint or local.")
    ] = "measured",
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", metavar="URL", help="OpenAI-compatible API; key: MEDCLIP_ENDPOINT_KEY.")
    ] = None,
    endpoint_model: Annotated[
        str | None, typer.Option("--endpoint-model", metavar="NAME", help="Name of the model at the endpoint.")
    ] = None,
    vlm: Annotated[
        Path | None, typer.Option("--vlm", metavar="DIR", help="Vision-language model of transformers, for local.")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option("--store", metavar="DIR", help="Vectors that `medclip slides embed --qc` made of these slides."),
    ] = None,
    organ: Annotated[
        str | None, typer.Option("--organ", help="Organ of the slides, or TCGA project, where the table has none.")
    ] = None,
    attributes: Annotated[
        Path | None, typer.Option("--attributes", metavar="FILE", help="YAML: phrases to look for, by organ.")
    ] = None,
    table: options.Table = None,
    num_by_attributes: Annotated[
        int, typer.Option("--num-by-attributes", min=0, help="Patches that fit the organ's attributes best.")
    ] = 64,
    num_by_findings: Annotated[
        int, typer.Option("--num-by-findings", min=0, help="Patches that fit the findings of the report best.")
    ] = 64,
    num_by_clusters: Annotated[
        int, typer.Option("--num-by-clusters", min=0, help="Patches of all kinds, by clusters.")
    ] = 256,
    cluster_batch: Annotated[
        int, typer.Option("--cluster-batch", min=1, help="Patches to a unit in the number of clusters.")
    ] = 128,
    most_cosine: Annotated[
        float, typer.Option("--most-cosine", metavar="C", help="What no two chosen patches of a slide exceed.")
    ] = 0.95,
    size_px: Annotated[int, typer.Option("--size-px", min=1, help="Rows and columns of a patch.")] = 336,
    mpp_um: Annotated[float, typer.Option("--patch-mpp", metavar="UM", help="Micrometres per pixel of patches.")] = 0.5,
    stain: options.Stain = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=8, help="Of a caption. Default: what the text tower takes.")
    ] = None,
    splits: options.SplitsOrNone = None,
    seed: options.Seed = 0,
    format: Annotated[str, typer.Option("--format", help="How patches are stored: png or jpeg.")] = "png",
    workers: options.Workers = None,
    memory: options.Memory = None,
    device: options.Device = "cpu",
    batch_size: options.BatchSize = None,
    stage_to: options.StageTo = None,
    retry_failed: options.RetryFailed = None,
    mpp: options.Mpp = None,
    hash_paths: options.HashPaths = False,
    key_file: options.KeyFile = None,
    as_json: options.Json = False,
) -> int:
    """Choose patches of slides, have them captioned, and write both as shards, split by patient.

    The same command goes on after a stop, also after an endpoint that went away; slides that came since are taken in.

    Exit code: 0 done, 3 some slides failed, 2 wrong use or refused, or the endpoint does not answer.
    """
    from medclip.api.pathgen import pathgen as run
    from medclip.cli.progress import print_line, progress
    from medclip.cli.settings_file import command_settings
    from medclip.exit_codes import ExitCode
    from medclip.settings import read_policy

    try:
        with progress(quiet=as_json) as shown:
            result = run(
                path,
                out,
                model=model,
                agent=agent,
                endpoint=endpoint,
                endpoint_model=endpoint_model,
                vlm=vlm,
                store=store,
                organ=organ,
                attributes=attributes,
                table=table,
                num_by_attributes=num_by_attributes,
                num_by_findings=num_by_findings,
                num_by_clusters=num_by_clusters,
                cluster_batch=cluster_batch,
                most_cosine=most_cosine,
                size_px=size_px,
                mpp_um=mpp_um,
                stain=stain,
                max_tokens=max_tokens,
                splits=None if splits is None else options.shares(splits),
                seed=seed,
                format=format,
                workers=workers,
                memory=memory,
                device=device,
                batch_size=batch_size,
                stage_to=stage_to,
                retry_failed=retry_failed,
                hash_paths=hash_paths,
                key_file=key_file,
                settings=command_settings(read_policy("reject", mpp, accept_unterminated=False)),
                progress=shown,
            )
    except KeyboardInterrupt:
        print_line("medclip: interrupted. What is noted in the journal is kept; the same command goes on.")
        return ExitCode.INTERRUPTED
    if as_json:
        print(json.dumps(result.to_dict()))
        return result.exit_code
    from medclip.errors import printable
    from medclip.wording import count, number

    statuses = ", ".join(f"{number(n)} {status}" for status, n in result.counts.items() if n)
    print(f"{count(len(result.slides), 'slide')}: {statuses}.")
    for row in result.slides:
        if row.message:
            print(f"  {printable(row.file)}: {row.message}")
    chosen = sum(row.num_chosen for row in result.slides)
    print(f"{count(len(result.records), 'record')} of {count(chosen, 'chosen patch', 'chosen patches')}.")
    for reason, rejected in sorted(result.rejected_by_reason.items(), key=lambda kv: -kv[1]):
        print(f"  {rejected:>7} rejected: {reason.replace('_', ' ')}")
    usage = result.usage
    if usage.prompt_tokens:
        print(f"Agent: {number(usage.calls)} calls, {number(usage.prompt_tokens + usage.completion_tokens)} tokens.")
    if result.records:
        print(f"Shards: {printable(str(result.shards))}")
    return result.exit_code
