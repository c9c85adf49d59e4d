"""`medclip score PATH --out DIR`: score a file or folder of studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from medclip.cli import options
from medclip.cli.run_reasons import SCORE_REMEDIES, interrupted, print_planned, print_reasons

HEADINGS = {
    "out": "Common options",
    "against": "What is asked",
    "table": "How files are read",
    "sort_by": "Output",
    "dry_run": "Unattended",
}


def score(
    path: Annotated[
        Path,
        typer.Argument(
            help="File or folder to score, a folder of embeddings, or a PACS: dicomweb://HOST:PORT/PATH.",
            show_default=False,
            readable=False,
        ),
    ],
    out: options.OutFolder,
    model: options.Model = "medclip-mini",
    task: options.ScoredTasks = None,
    prompt: options.ScoredPrompts = None,
    workers: options.Workers = None,
    memory: options.Memory = None,
    device: options.Device = "cpu",
    batch_size: options.BatchSize = None,
    backend: options.Backend = None,
    engine: options.Engine = "local",
    shard: options.Shard = None,
    against: options.ScoredAgainst = None,
    templates: Annotated[
        bool,
        typer.Option(
            "--templates/--no-templates", help="Put a bare finding into sentences, such as 'an X-ray image with {}'."
        ),
    ] = True,
    modality: options.Modality = None,
    min_confidence: options.MinConfidence = 0.8,
    table: options.Table = None,
    query: options.Query = "",
    spool: options.Spool = None,
    exclude: Annotated[
        list[Path] | None,
        typer.Option("--exclude", metavar="PATH", help="Leave out this file or folder below PATH. Repeatable."),
    ] = None,
    group_by: options.GroupBy = "auto",
    exam: Annotated[
        bool | None,
        typer.Option(
            "--exam/--no-exam",
            help="Ask mammography examinations by their views. Default: where the model fuses views.",
        ),
    ] = None,
    uneven: options.Uneven = "reject",
    mpp: options.Mpp = None,
    accept_unterminated: options.AcceptUnterminated = False,
    key_file: options.KeyFile = None,
    add: options.Add = False,
    retry_failed: options.RetryFailed = None,
    sort_by: Annotated[
        str | None,
        typer.Option(
            "--sort-by", metavar="TASK[:CLASS]", help="Sort the report by this probability, the highest first."
        ),
    ] = None,
    report_paths: options.ReportPaths = False,
    hash_paths: options.HashPaths = False,
    weeks: options.Weeks = False,
    thumbnails: options.Thumbnails = True,
    csv: Annotated[bool, typer.Option("--csv", help="Write the tables as CSV, too.")] = False,
    explain: Annotated[
        str | None,
        typer.Option("--explain", metavar="top|TASK[:CLASS]", help="Draw heat maps of this into the report."),
    ] = None,
    results_to: options.ResultsTo = None,
    results_as: options.ResultsAs = None,
    dry_run: options.DryRun = False,
    work: options.Work = None,
    limit: options.Limit = None,
    log: options.Log = None,
    metrics: options.Metrics = None,
    store_to: options.StoreTo = None,
    as_json: options.Json = False,
) -> int:
    """Score a file or folder of studies in words and write tables and a report. The same command goes on after a stop.

    Exit code: 0 all scored or skipped, 3 some failed, 2 wrong use or refused.
    """
    from medclip.api.score import score as run_score
    from medclip.cli.progress import progress
    from medclip.cli.settings_file import command_settings
    from medclip.settings import read_policy

    try:
        with progress(quiet=as_json) as shown:
            run = run_score(
                path,
                out,
                work=work,
                query=query,
                exclude=exclude or (),
                spool=spool,
                store_to=store_to,
                model=model,
                task=task or (),
                prompt=prompt or (),
                against=against or (),
                templates=templates,
                table=table,
                modality=modality,
                min_confidence=min_confidence,
                group_by=group_by,  # pyright: ignore[reportArgumentType] (checked by ScoreOptions)
                exam=exam,
                workers=workers,
                memory=memory,
                add=add,
                retry_failed=retry_failed,
                sort_by=sort_by,
                report_paths=report_paths,
                hash_paths=hash_paths,
                weeks=weeks,
                thumbnails=thumbnails,
                csv=csv,
                explain=explain,
                results_to=results_to,
                results_as=results_as or (),
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
    print_run(run, as_json)
    return run.exit_code


def print_run(run: Any, as_json: bool) -> None:
    """Print how a run ended and where its results are."""
    if as_json:
        print(
            json.dumps(
                {
                    "out": str(run.folder),
                    "report": None if run.report_path is None else str(run.report_path),
                    "exit_code": run.exit_code,
                    **run.counts,
                    "notes": run.notes,
                    **({"answers": run.answers} if run.answers else {}),
                    "unlearned": [answers.to_json() for answers in run.unlearned],
                    **({} if run.planned is None else {"planned": run.planned}),
                    **({} if run.work is None else {"work": run.work}),
                    **({} if run.published is None else {"published": run.published}),
                    **({} if run.exported is None else {"results": run.exported}),
                }
            )
        )
        return
    if run.planned is not None:
        print_planned(run, SCORE_REMEDIES)
        return
    if run.already_finished:
        print("This run was finished before; nothing was computed again.")
    from medclip.errors import printable
    from medclip.reports.score.report import headline
    from medclip.runs.outputs.results import SCORES

    print(f"{headline(run.counts)}.")
    if run.shard is not None:
        print(f"Shard {run.shard}. When all are finished: medclip runs merge DIR... --out DIR")
        return
    print_reasons(run.files, SCORE_REMEDIES)
    if run.table_rows_elsewhere:
        print(f"Rows of the table that name no file here: {run.table_rows_elsewhere}")
    if run.answers:
        _print_answers(run)
    else:
        _print_unlearned(run)
        if run.counts["studies"]:
            print(f"Answers: {printable(str(run.folder / SCORES))}, and study by study in the report.")
    print(f"Report: {printable(str(run.report_path))}")
    if run.published is not None:
        print(f"Published: {printable(run.published)}")
    if run.exported is not None:
        from medclip.export.results_folder import Exported

        for line in Exported(**run.exported).sentences():
            print(line)
        print(f"Results: {printable(str(run.exported['folder']))}")


def _print_answers(run: Any) -> None:
    """Print the answers of a few studies; what is grey in the report is grey here."""
    from medclip.cli.progress import print_grey
    from medclip.reports.score.answers import answer_lines

    for study in run.answers:
        for line, is_grey in answer_lines(study):
            (print_grey if is_grey else print)(line)


def _print_unlearned(run: Any) -> None:
    """Print which answers are worth little: they are grey in the report."""
    from medclip.cli.progress import print_grey

    by_reason: dict[str, list[str]] = {}
    for answers in run.unlearned:
        name = answers.task if answers.class_ is None else f"“{answers.class_}”"
        by_reason.setdefault(answers.reason, []).append(name)
    for reason, names in by_reason.items():
        print_grey(f"Not learned: {', '.join(dict.fromkeys(names))}: {reason}.")
