"""`medclip adapt compare --labels T --label COL --out DIR`: which way of adapting helps, and how surely."""

from __future__ import annotations

from typing import Annotated

import typer

from medclip.cli import options

HEADINGS = {
    "labels": "Common options",
    "model": "What is compared",
    "task": "Table and patients",
    "report_paths": "Output",
    "processes": "This machine",
}


def compare(
    labels: options.Labels,
    label: options.LabelColumns,
    out: options.OutFolder,
    methods: Annotated[
        str, typer.Option("--methods", metavar="A,B", help="Default: all. With options: svd:lr=0.01.")
    ] = "",
    shots: Annotated[
        str, typer.Option("--shots", metavar="K,K", help="Patients of each class, one file of each.")
    ] = "1,2,4,8,16",
    model: options.Model = "medclip-mini",
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the methods that train towers.")] = False,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Draws of shots: those of adapt --seed 0, 1, …")] = 5,
    inits: Annotated[int, typer.Option("--inits", min=1, help="Initialisations for each draw.")] = 1,
    base_to_novel: Annotated[
        bool, typer.Option("--base-to-novel", help="Also learn half of the classes and ask for the others.")
    ] = False,
    reference: Annotated[
        str, typer.Option("--reference", metavar="A,B", help="What every method is compared with.")
    ] = "zero-shot,linear-probe",
    num_resamples: options.NumResamples = 2000,
    task: options.Task = None,
    modality: options.Modality = None,
    patient: options.Patient = None,
    images: options.Images = None,
    test_share: options.TestShare = 0.3,
    split_seed: Annotated[
        int, typer.Option("--split-seed", help="Seed of the division into learning and testing.")
    ] = 0,
    key_file: options.KeyFile = None,
    report_paths: options.ReportPaths = False,
    as_json: options.Json = False,
    processes: Annotated[int, typer.Option("--processes", min=1, help="Runs at a time, one thread each.")] = 1,
    device: options.Device = "cpu",
) -> int:
    """Compare ways of adapting a pack to a few labelled studies, on the same shots and the same test patients.

    Exit code: 0 every run gave predictions, 3 some method failed (the page names it and why), 2 wrong use or refused.
    """
    from medclip.api.compare import compare as run
    from medclip.cli.progress import progress
    from medclip.errors import MedclipError, Reason, printable
    from medclip.exit_codes import ExitCode

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
            print(printable(line))
        print(f"Page: {printable(str(out / 'report.html'))}")
    return ExitCode.SOME_FAILED if compared.failures else 0


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
