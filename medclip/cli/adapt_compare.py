"""`medclip adapt compare --labels T --label COL --out DIR`: which way of adapting helps, and how surely."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SOME_FAILED = 3
COMMON = "Common options"
PROTOCOL = "What is compared"
DATA = "Table and patients"
OUTPUT = "Output"
MACHINE = "This machine"


def compare(
    labels: Annotated[
        Path,
        typer.Option(
            "--labels",
            rich_help_panel=COMMON,
            help="CSV, TSV or Parquet, whatever its suffix: file, patient, labels.",
            show_default=False,
        ),
    ],
    label: Annotated[
        list[str],
        typer.Option(
            "--label",
            rich_help_panel=COMMON,
            metavar="COL",
            help="Column of labels; again for more columns of 0 and 1.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", rich_help_panel=COMMON, help="Folder for page and tables; run again to go on in it."),
    ],
    methods: Annotated[
        str,
        typer.Option(
            "--methods", rich_help_panel=COMMON, metavar="A,B", help="Default: all. With options: svd:lr=0.01."
        ),
    ] = "",
    shots: Annotated[
        str, typer.Option("--shots", rich_help_panel=COMMON, metavar="K,K", help="Patients of each class.")
    ] = "1,2,4,8,16",
    model: Annotated[
        str, typer.Option("--model", rich_help_panel=PROTOCOL, metavar="PACK", help="Name or folder of the base pack.")
    ] = "medclip-mini",
    quick: Annotated[
        bool, typer.Option("--quick", rich_help_panel=PROTOCOL, help="Leave out the methods that train towers.")
    ] = False,
    seeds: Annotated[int, typer.Option("--seeds", rich_help_panel=PROTOCOL, min=1, help="Draws of shots.")] = 5,
    inits: Annotated[
        int, typer.Option("--inits", rich_help_panel=PROTOCOL, min=1, help="Initialisations for each draw.")
    ] = 1,
    base_to_novel: Annotated[
        bool,
        typer.Option(
            "--base-to-novel", rich_help_panel=PROTOCOL, help="Also learn half of the classes and ask for the others."
        ),
    ] = False,
    reference: Annotated[
        str,
        typer.Option(
            "--reference", rich_help_panel=PROTOCOL, metavar="A,B", help="What every method is compared with."
        ),
    ] = "zero-shot,linear-probe",
    num_resamples: Annotated[
        int, typer.Option("--num-resamples", rich_help_panel=PROTOCOL, min=1, help="Resamples of patients.")
    ] = 2000,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            rich_help_panel=DATA,
            metavar="NAME|FILE",
            help="Task of the vocabulary, or a task file of your own.",
        ),
    ] = None,
    modality: Annotated[
        str | None,
        typer.Option("--modality", rich_help_panel=DATA, metavar="M", help="Modality of rows whose table says none."),
    ] = None,
    patient: Annotated[
        str | None,
        typer.Option(
            "--patient",
            rich_help_panel=DATA,
            metavar="COLUMN",
            help="Column that names the patient; file: each file is one.",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images", rich_help_panel=DATA, help="Folder that files of the table are relative to. Default: its own."
        ),
    ] = None,
    test_share: Annotated[
        float,
        typer.Option(
            "--test-share", rich_help_panel=DATA, help="Share of patients to test on, where the table has no split."
        ),
    ] = 0.3,
    split_seed: Annotated[int, typer.Option("--split-seed", rich_help_panel=DATA, help="Of that division.")] = 0,
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", rich_help_panel=DATA, help="Identity key that patients are hashed with."),
    ] = None,
    report_paths: Annotated[
        bool,
        typer.Option(
            "--report-paths", rich_help_panel=OUTPUT, help="Name files in the page; names may identify patients."
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", rich_help_panel=OUTPUT, help="Print one JSON object and nothing else.")
    ] = False,
    processes: Annotated[
        int, typer.Option("--processes", rich_help_panel=MACHINE, min=1, help="Runs at a time, one thread each.")
    ] = 1,
    device: Annotated[str, typer.Option("--device", rich_help_panel=MACHINE, help="Torch device.")] = "cpu",
) -> int:
    """Compare ways of adapting a pack to a few labelled studies, on the same shots and the same test patients.

    Exit code: 0 every run gave predictions, 3 some method failed (the page names it and why), 2 wrong use.
    """
    from medclip.api.compare import compare as run
    from medclip.cli.progress import progress
    from medclip.errors import MedclipError, Reason, printable

    try:
        chosen = [int(k) for k in _listed(shots)]
    except ValueError as e:
        raise MedclipError(Reason.WRONG_USE, "--shots takes whole numbers with commas between them.") from e
    with progress(quiet=as_json) as shown:
        compared = run(
            labels,
            label,
            out=out,
            model=model,
            methods=_listed(methods),
            quick=quick,
            shots=chosen,
            seeds=seeds,
            inits=inits,
            base_to_novel=base_to_novel,
            reference=_listed(reference),
            task=task,
            modality=modality,
            images=images,
            patient=patient,
            test_share=test_share,
            split_seed=split_seed,
            processes=processes,
            num_resamples=num_resamples,
            device=device,
            key_file=key_file,
            report_paths=report_paths,
            progress=shown,
        )
    if as_json:
        print(compared.to_json(), end="")
    else:
        for line in compared.lines():
            print(line)
        print(f"Page: {printable(str(out / 'report.html'))}")
    return SOME_FAILED if compared.failures else 0


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
