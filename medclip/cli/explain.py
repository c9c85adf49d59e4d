"""`medclip explain FILE --prompt TEXT --out DIR`: what in an image moves a score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from medclip.cli import options

HEADINGS = {"out": "Common options", "against": "What is asked", "modality": "How files are read", "scale": "Output"}


def explain(
    path: Annotated[
        list[Path], typer.Argument(help="Files or folders.", show_default=False, readable=False, metavar="FILE...")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to write; one that holds something else is refused.")],
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", metavar="TEXT", help="Explain this sentence; repeatable, side by side."),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task", metavar="TASK[:CLASS]", help="Explain this class, or the task's most probable one. Repeatable."
        ),
    ] = None,
    model: options.Model = "medclip-mini",
    device: options.Device = "cpu",
    against: Annotated[
        list[str] | None,
        typer.Option("--against", metavar="TEXT", help="What each prompt is compared with. Default: 'no TEXT'."),
    ] = None,
    contrast: Annotated[
        bool, typer.Option("--contrast/--no-contrast", help="Compare as the score does, or explain the logit alone.")
    ] = True,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="gradient-attention, gradient-rollout, rollout, grad-cam, score-cam or gscore-cam. Default: the first "
            "for transformers, grad-cam for others. A model of ECGs takes occlusion.",
        ),
    ] = None,
    checks: Annotated[
        bool, typer.Option("--checks/--no-checks", help="Check the maps, which takes some hundred passes each.")
    ] = True,
    seed: options.Seed = 0,
    modality: options.Modality = None,
    min_confidence: Annotated[
        float, typer.Option("--min-confidence", metavar="P", help="Least probability to believe an inferred modality.")
    ] = 0.8,
    uneven: options.Uneven = "reject",
    mpp: options.Mpp = None,
    accept_unterminated: options.AcceptUnterminated = False,
    scale: Annotated[
        str,
        typer.Option("--scale", help="Strongest colour: the largest value of each prompt (own) or of all (common)."),
    ] = "own",
    report_paths: options.ReportPaths = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> int:
    """Show what in an image moves a score: heat maps, overlays, arrays, and whether to believe them.

    Exit code: 0 every file has a map, 3 some failed or have an empty map, 2 wrong use or refused.
    """
    from medclip.api.explain import explain as run
    from medclip.cli.progress import progress
    from medclip.cli.settings_file import command_settings
    from medclip.settings import read_policy

    with progress(quiet=as_json) as shown:
        explained = run(
            path,
            prompt or (),
            against=against or (),
            task=task or (),
            out=out,
            model=model,
            modality=modality,
            min_confidence=min_confidence,
            method=method,
            contrast=contrast,
            checks=checks,
            scale=scale,
            device=device,
            seed=seed,
            report_paths=report_paths,
            overwrite=overwrite,
            settings=command_settings(read_policy(uneven, mpp, accept_unterminated=accept_unterminated)),
            progress=shown,
        )
    if as_json:
        print(json.dumps({"out": str(out), "exit_code": explained.exit_code, **explained.facts()}))
        return explained.exit_code
    _print(explained, out)
    return explained.exit_code


def _print(explained: object, out: Path) -> None:
    from medclip.errors import printable
    from medclip.explaining.result import Explained
    from medclip.reports.explain.words import sentences
    from medclip.result import named_counts

    assert isinstance(explained, Explained)
    for unit in explained:
        for line in sentences(unit):
            print(f"{printable(unit.file)}: {printable(line)}")
    if len(explained) > 1:
        print(f"{named_counts(explained.counts)}.")
    print(f"Page: {printable(str(out / 'explain.html'))}")
