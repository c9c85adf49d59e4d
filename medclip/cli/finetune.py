"""`medclip finetune MODEL LABELS --label COL --out DIR`: fine-tune an image tower to classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medclip.cli import options

if TYPE_CHECKING:
    from medclip.adaptation.finetune.result import FinetuneResult

HEADINGS = {
    "label": "Common options",
    "images": "Table and patients",
    "seed": "How it learns",
    "name": "Output",
    "workers": "This machine",
}


def finetune(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Name or folder of a pack, or a tower of timm or of ECGs for random weights."
        ),
    ],
    labels: Annotated[Path, typer.Argument(help="CSV, TSV or Parquet, whatever its suffix: file, patient, labels.")],
    label: options.LabelColumns,
    out: options.OutFolder,
    images: options.Images = None,
    patient: options.Patient = None,
    task: options.Task = None,
    modality: options.Modality = None,
    test_share: options.TestShare = 0.2,
    val_share: options.ValShare = 0.1,
    seed: options.Seed = 0,
    overrides: options.Overrides = None,
    resume: options.Resume = True,
    name: options.Name = None,
    as_json: options.Json = False,
    key_file: options.KeyFile = None,
    workers: options.Workers = None,
    memory: options.Memory = None,
) -> int:
    """Fine-tune an image tower to classes, choose the best epoch on validation patients, and test it once.

    The recipe is that of medical MAE; a value is changed by its path, such as --set train.epochs=20. Run the same
    command again to go on after a stop. Several GPUs: torchrun --nproc-per-node N -m medclip.cli.main finetune ...

    Exit code: 0 trained, 3 trained, but some files could not be read (they are counted by reason), 2 wrong use or
    refused, 130 stopped by Ctrl-C or SIGTERM after a checkpoint.
    """
    from medclip.api.finetune import finetune as run
    from medclip.cli import ranks
    from medclip.cli.progress import progress
    from medclip.errors import MedclipError
    from medclip.exit_codes import ExitCode, exit_code

    speaks = ranks.speaks()
    try:
        with progress(quiet=as_json or not speaks) as shown:
            result = run(
                model, labels, label, out=out, images=images, patient=patient, task=task, modality=modality,
                test_share=test_share, val_share=val_share, seed=seed, overrides=overrides or (), name=name,
                resume=resume, key_file=key_file, workers=workers, memory=memory, progress=shown,
            )  # fmt: skip
    except MedclipError as error:
        if speaks:
            raise
        return exit_code(error.reason)
    if speaks:
        _print(result, as_json)
    if result.pack is None:
        return ranks.leave(ExitCode.INTERRUPTED)
    return ranks.leave(ExitCode.SOME_FAILED if result.problems else ExitCode.COMPLETE)


def _print(result: FinetuneResult, as_json: bool) -> None:
    import json

    from medclip.errors import printable
    from medclip.reports.finetune_text import finetune_json, finetune_text

    if as_json:
        print(json.dumps(finetune_json(result), ensure_ascii=False))
    else:
        print("\n".join(map(printable, finetune_text(result).split("\n"))))
