"""`medclip adapt --model PACK --labels T --label COL --method svd --shots 16 --out DIR`: adapt a pack to a question."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medclip.cli import options

if TYPE_CHECKING:
    from medclip.adaptation.run import AdaptRun

SOME_FAILED = 3
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
        str,
        typer.Option(
            "--method",
            metavar="NAME",
            help="zero-shot, linear-probe, lp++, ridge, knn, lda, tip, tip-f, clip-adapter, coop, biomedcoop, cocoop, "
            "svd, lora, norm or full.",
        ),
    ] = "svd",
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
    init_seed: Annotated[int, typer.Option("--init-seed", help="Of initialisation, batches and augmentation.")] = 0,
    set_: options.Settings = None,
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
    from medclip.files.key_value import key_values, read_value

    chosen = {key.replace("-", "_"): read_value(text, "--set") for key, text in key_values(set_ or (), "--set").items()}
    if views is not None:
        chosen["views"] = views
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
            options=chosen,
            name=name,
            key_file=key_file,
            workers=workers,
            threads=threads,
            device=device,
            progress=shown,
            overwrite=overwrite,
        )
    if as_json:
        print(json.dumps(_values(run), indent=1, ensure_ascii=False))
    else:
        for line in _lines(run):
            print(line)
    return SOME_FAILED if run.problems else 0


def _lines(run: AdaptRun) -> list[str]:
    from medclip.errors import printable
    from medclip.evaluation.adapted_model import notes_of
    from medclip.wording import count, list_of, number

    adapted, figures = run.adapted, run.measured
    text, fitted = run.text, run.adapted.fitted
    train = [s for s in adapted.shots if s.role == "train"]
    num_val = len(adapted.shots) - len(train)
    chosen_with = f", and {num_val} further ones to choose settings with" if num_val else ""
    shots = ", ".join(f"{name} {num}" for name, num in adapted.num_by_class.items())
    num_shown = len({s.patient for s in train})
    num_patients = len({u.patient for u in run.units})
    learned, tested = (len({run.units[i].patient for i in rows}) for rows in (run.division.train, run.division.test))
    took = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in run.seconds.items())
    lines = [
        f"{text.task.title}: {list_of(text.names, 'or' if text.kind == 'multiclass' else 'and')}",
        f"{count(len(run.units), 'labelled file')} of {count(num_patients, 'patient')}: "
        f"{learned} to learn from and {tested} to test on",
        f"Shots: {shots}; {count(len(train), 'file')} of {count(num_shown, 'patient')}{chosen_with}",
        f"{adapted.title}: {number(fitted.num_trainable)} numbers learned ({took})",
    ]
    lines += [f"Note: {note}" for note in notes_of(run)]
    if run.problems:
        said = ", ".join(f"{reason.replace('_', ' ')} {n}" for reason, n in run.problems.items())
        lines.append(f"Not read: {said}")
    if figures.figures:
        lines += ["", *figures.lines()]
        intervals = "; 95 % intervals resample patients" if figures.has_intervals else ""
        lines.append(f"On {figures.num_files} files of {figures.num_patients} test patients{intervals}.")
    lines += ["", f"Pack: {printable(str(run.folder))}"]
    return lines


def _values(run: AdaptRun) -> dict[str, Any]:
    from dataclasses import asdict

    from medclip.evaluation.adapted_model import notes_of

    adapted = run.adapted
    return {
        "pack": str(run.folder),
        "task": run.text.task.name,
        "kind": run.text.kind,
        "classes": list(run.text.names),
        "method": adapted.method,
        "base": asdict(adapted.base),
        **asdict(adapted.draw),
        "num_trainable": adapted.fitted.num_trainable,
        "settings": dict(adapted.fitted.settings),
        "seconds": {name: round(s, 2) for name, s in run.seconds.items()},
        "num_files": len(run.units),
        "shots_taken": [asdict(s) for s in adapted.shots],
        "problems": dict(run.problems),
        "notes": list(notes_of(run)),
        **run.measured.to_json(),
    }
