"""`medclip watch FOLDER --out DIR`: score what a router or a person puts into a folder, as it comes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medclip.cli import options
from medclip.cli.run_reasons import interrupted

HEADINGS = {"out": "Common options", "against": "What is asked", "results_to": "Output"}


def watch(
    folder: Annotated[Path, typer.Argument(help="Folder that others write to.", show_default=False, readable=False)],
    out: options.OutFolder,
    work: options.Work = None,
    settle: Annotated[
        float,
        typer.Option("--settle", metavar="SECONDS", help="How long a file has to stay as it is to count as whole."),
    ] = 60.0,
    once: Annotated[
        bool, typer.Option("--once", help="Score what is there once nothing moves any more, and end.")
    ] = False,
    model: options.Model = "medclip-mini",
    task: options.ScoredTasks = None,
    prompt: options.ScoredPrompts = None,
    workers: options.Workers = None,
    memory: options.Memory = None,
    device: options.Device = "cpu",
    batch_size: options.BatchSize = None,
    backend: options.Backend = None,
    against: options.ScoredAgainst = None,
    modality: options.Modality = None,
    group_by: options.GroupBy = "auto",
    key_file: options.KeyFile = None,
    results_to: options.ResultsTo = None,
    results_as: options.ResultsAs = None,
    store_to: options.StoreTo = None,
    report_paths: options.ReportPaths = False,
    thumbnails: options.Thumbnails = True,
    log: options.Log = None,
    metrics: options.Metrics = None,
    as_json: options.Json = False,
) -> int:
    """Score what comes into a folder, as it comes, into one run that grows; the same command goes on after a stop.

    Once it is stopped, or with --once, it ends. Exit code: 0 all scored or skipped, 3 some failed, 2 wrong use or
    refused, 130 stopped in the middle of its work.
    """
    from medclip.api.watch import watch as run_watch
    from medclip.cli.progress import progress
    from medclip.cli.score import print_run
    from medclip.cli.settings_file import command_settings

    try:
        with progress(quiet=as_json) as shown:
            run = run_watch(
                folder,
                out,
                work=work,
                settle_s=settle,
                once=once,
                model=model,
                task=task or (),
                prompt=prompt or (),
                against=against or (),
                modality=modality,
                group_by=group_by,
                workers=workers,
                memory=memory,
                device=device,
                batch_size=batch_size,
                backend=backend,
                key_file=key_file,
                results_to=results_to,
                results_as=results_as or (),
                store_to=store_to,
                report_paths=report_paths,
                thumbnails=thumbnails,
                log=log,
                metrics=metrics,
                settings=command_settings(),
                progress=shown,
            )
    except KeyboardInterrupt:
        return interrupted(work or out)
    if run is None:
        print('{"files": 0}' if as_json else "Nothing came.")
        return 0
    print_run(run, as_json)
    return run.exit_code
