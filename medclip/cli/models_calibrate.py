"""`medclip models calibrate PACK --images DIR`: choose what computes a pack's images on this processor."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medclip.cli import options
from medclip.errors import printable

if TYPE_CHECKING:
    from medclip.models.backends.calibration import Calibration


def calibrate(
    images: Annotated[
        Path,
        typer.Option(
            "--images", metavar="DIR|TABLE", help="Images like those that will be scored: a folder, or a table of them."
        ),
    ],
    model: options.Pack = "medclip-mini",
    out: options.OutFolderOrNone = None,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="NAME", help="Task to compare answers of. Default: those of the card."),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", metavar="TEXT", help="Score this; 'TEXT | TEXT' are ways to say it. Repeatable."),
    ] = None,
    modality: options.Modality = None,
    num_images: Annotated[int, typer.Option("--num-images", min=1, help="Most images that it is measured on.")] = 128,
    run_images: Annotated[
        int,
        typer.Option(
            "--run-images",
            min=1,
            help="Images of your runs: what compiling costs each run has to come back within them.",
        ),
    ] = 10_000,
    backend: Annotated[
        list[str] | None, typer.Option("--backend", metavar="NAME", help="Back-end to try. Default: all there are.")
    ] = None,
    batch_size: options.BatchSize = None,
    workers: options.Workers = None,
    memory: options.Memory = None,
    as_json: options.Json = False,
) -> None:
    """Choose the fastest back-end that leaves a pack's scores as they are, for --backend of score and embed.

    Probabilities may change by 0.001 in floating point; by 0.01 in int8, with decisions and ranks as they were. Without
    --out the calibration is kept where --backend auto looks for it.

    Exit code: 0 chosen, 2 wrong use or refused.
    """
    from medclip.api.calibrate import calibrate as run
    from medclip.cli.progress import progress

    with progress(quiet=as_json) as shown:
        calibration = run(
            model,
            images=images,
            out=out,
            task=task or (),
            prompt=prompt or (),
            modality=modality,
            num_images=num_images,
            run_images=run_images,
            backend=backend or (),
            batch_size=batch_size,
            workers=workers,
            memory=memory,
            progress=shown,
        )
    if as_json:
        values = {name: value for name, value in asdict(calibration).items() if name != "folder"}
        print(json.dumps({"folder": str(calibration.folder), **values}, indent=1))
        return
    _print(calibration, auto=out is None)


def _print(calibration: Calibration, *, auto: bool) -> None:
    from medclip.cli.table import print_paragraph, print_table
    from medclip.models.backends.choice import what_may_break
    from medclip.wording import count, list_of, number

    rows = [
        (c.name, f"{c.cpu_ms:.1f}", f"{c.times_as_fast:.2f}", f"{c.largest_change:.1e}", f"{c.bound:g}", c.refused)
        for c in calibration.candidates
    ]
    print_table(("back-end", "ms", "times as fast", "change", "allowed", "refused, as"), rows)
    for candidate in calibration.candidates:
        if candidate.start_s:
            print_paragraph(
                "Start: ", f"each run compiles {candidate.name} for {candidate.start_s:.0f} s; with that an image of "
                f"{number(calibration.run_images)} costs {calibration.cost_ms(candidate):.1f} ms.",
            )  # fmt: skip
    for name, why in calibration.left_out.items():
        print_paragraph("Not tried: ", f"{name}: {why}")
    judged = calibration.judged
    about = f"{count(calibration.num_images, 'image')}, {list_of(calibration.tasks)}"
    print_paragraph("\nMeasured on ", f"{about}; ms is processor time of one image on one thread of {calibration.cpu}.")
    patients = "patients apart" if calibration.num_patients else "which name no patients"
    of_patients = f" of {count(num, 'patient')}" if (num := calibration.num_held_out_patients) else ""
    print_paragraph(
        "Judged on ", f"{count(calibration.num_held_out, 'image')}{of_patients} that did not choose ({patients}): "
        f"{calibration.choice} changed no probability by more than {judged.largest_change:.1e}. "
        f"{what_may_break(calibration.num_held_out, num, calibration.chosen.bound)}",
    )  # fmt: skip
    where = "auto" if auto else printable(str(calibration.folder))
    print(f"Choice: {calibration.choice}. Score with it: --backend {where}")
