"""`medclip adapt --model PACK --labels T --label COL --method svd --shots 16 --out DIR`: adapt a pack to a question."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medclip.cli import options

HEADINGS = {
    "labels": "Common options",
    "model": "Table and patients",
    "seed": "How it learns",
    "name": "Output",
    "workers": "This machine",
}


def adapt(
    labels: options.Labels,
    label: options.LabelColumns,
    out: options.OutFolder,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            metavar="NAME",
            help="zero-shot, linear-probe, lp++, ridge, knn, lda, tip, tip-f, clip-adapter, coop, biomedcoop, cocoop, "
            "svd (default), lora, norm or full. An image-only pack takes linear-probe (its default), ridge, knn, lda.",
        ),
    ] = None,
    shots: Annotated[
        int, typer.Option("--shots", min=1, metavar="K", help="Patients of each class, one file of each.")
    ] = 16,
    model: options.Model = "medclip-mini",
    task: options.Task = None,
    modality: options.Modality = None,
    patient: options.Patient = None,
    images: options.Images = None,
    test_share: options.TestShare = 0.3,
    key_file: options.KeyFile = None,
    seed: options.Seed = 0,
    init_seed: Annotated[int, typer.Option("--init-seed", help="Seed of initial values, batches, augmentation.")] = 0,
    overrides: options.Overrides = None,
    views: Annotated[
        str | None,
        typer.Option("--views", help="Slides, volumes, loops: learn from each view, or from them pooled (default)."),
    ] = None,
    name: options.Name = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="Folder for what was learned alone, bound to the base.")
    ] = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    workers: options.Workers = None,
    memory: options.Memory = None,
    threads: options.Threads = None,
    device: options.Device = "cpu",
) -> int:
    """Adapt a model to a question of your own from a few labelled studies; `adapt compare` tells which way helps.

    The new pack is used with `medclip score --model`. Exit code: 0 all files were read, 3 some were not (they are
    counted by reason), 2 wrong use or refused.
    """
    import json

    from medclip.api.adapt import adapt as run_adapt
    from medclip.cli.progress import progress
    from medclip.errors import printable
    from medclip.exit_codes import ExitCode
    from medclip.files.recipes.key_value import read_overrides
    from medclip.reports.adapt_text import adapt_json, adapt_text

    chosen = read_overrides(overrides or ()) | ({} if views is None else {"views": views})
    with progress(quiet=as_json) as shown:
        run = run_adapt(
            labels,
            label,
            model=model,
            method=method,
            shots=shots,
            out=out,
            checkpoint=checkpoint,
            task=task,
            modality=modality,
            images=images,
            patient=patient,
            seed=seed,
            init_seed=init_seed,
            test_share=test_share,
            overrides=chosen,
            name=name,
            key_file=key_file,
            workers=workers,
            memory=memory,
            threads=threads,
            device=device,
            progress=shown,
            overwrite=overwrite,
        )
    if as_json:
        print(json.dumps(adapt_json(run), indent=1, ensure_ascii=False))
    else:
        print("\n".join(map(printable, adapt_text(run).split("\n"))))
    return ExitCode.SOME_FAILED if run.problems else 0
