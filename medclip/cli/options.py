"""Options that several commands take: each has one name, one type and one sentence of help.

A command groups its options in --help by HEADINGS: a heading begins at the option that is named and ends at the next.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Labels = Annotated[
    Path, typer.Option("--labels", help="CSV, TSV or Parquet, whatever its suffix: file, patient, labels.")
]
LabelColumns = Annotated[
    list[str],
    typer.Option(
        "--label",
        metavar="COLUMN",
        help="Column of class names, or one of 0 and 1. May be repeated, for several findings.",
    ),
]
Table = Annotated[
    Path | None,
    typer.Option("--table", help="CSV, TSV or Parquet, whatever its suffix: file; study, patient, modality."),
]
Patient = Annotated[
    str | None,
    typer.Option(
        "--patient",
        metavar="COLUMN",
        help="Column that names the patient; `file` where each file is a patient of its own.",
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(
        "--images",
        metavar="DIR",
        help="Folder that files of a table are relative to, or of embeddings: no image is read. Default: the table's.",
    ),
]
Modality = Annotated[
    str | None,
    typer.Option("--modality", metavar="M", help="Modality of files that neither the table nor their header names."),
]
Task = Annotated[
    str | None,
    typer.Option("--task", metavar="NAME|FILE", help="Task of the vocabulary, or a task file of your own."),
]
GroupBy = Annotated[str, typer.Option("--group-by", help="How files become studies: auto, folder or file.")]
Uneven = Annotated[str, typer.Option("--uneven", help="Series with gaps or uneven spacing: reject or resample.")]
Mpp = Annotated[
    float | None,
    typer.Option("--mpp", metavar="UM", help="Micrometres per pixel of slides that state none, or that of a printer."),
]
AcceptUnterminated = Annotated[
    bool,
    typer.Option("--accept-unterminated", help="Read compressed images that lack their end marker and nothing else."),
]
TestShare = Annotated[
    float, typer.Option("--test-share", help="Share of patients to test on, where the table has no column `split`.")
]
ValShare = Annotated[
    float, typer.Option("--val-share", help="Share of patients to choose weights with, where the table names none.")
]
SPLITS = "train=0.7,val=0.1,test=0.2"
SplitsOrNone = Annotated[str | None, typer.Option("--splits", help=f"Shares by patient, such as {SPLITS}.")]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", help="Identity key that patients and studies are hashed with. Default: your own."),
]

Model = Annotated[str, typer.Option("--model", metavar="PACK", help="Name or folder of a model pack.")]
Pack = Annotated[str, typer.Argument(metavar="PACK", help="Name or folder of a model pack.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: --set steps=200. May be repeated."),
]
Stain = Annotated[
    str | None, typer.Option("--stain", help="Make colours alike for the model: hed, macenko or reinhard.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of all chance: the same number draws the same.")]
NumResamples = Annotated[int, typer.Option("--num-resamples", min=1, help="Resamples of patients.")]

_OUT = typer.Option("--out", help="Folder to write; one that holds something else is refused.")
OutFolder = Annotated[Path, _OUT]
Work = Annotated[
    Path | None,
    typer.Option(
        "--work",
        metavar="DIR",
        help="Folder of this machine for the ledger, where --out is a store (s3://...).",
        show_default=False,
    ),
]
OutFolderOrNone = Annotated[Path | None, _OUT]
Resume = Annotated[bool, typer.Option(help="Go on with a stopped run in that folder.")]
Name = Annotated[str | None, typer.Option("--name", help="Name on the card of the new pack.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]
ReportPaths = Annotated[
    bool, typer.Option("--report-paths", help="Name files in the report; their names may identify patients.")
]
HashPaths = Annotated[
    bool, typer.Option("--hash-paths", help="Hash paths with the identity key: names of files may identify patients.")
]
Weeks = Annotated[
    bool, typer.Option("--weeks", help="Write the week of each DICOM examination into files.parquet, to watch drift.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]

Limit = Annotated[
    int | None,
    typer.Option(
        "--limit",
        metavar="N",
        min=1,
        help="Stop once so many files, taken in blocks of 32, have their row; without it the run goes on later.",
    ),
]
Log = Annotated[
    Path | None,
    typer.Option(
        "--log", metavar="FILE", help="Append events as JSON lines: counts and reasons, no path and no identifier."
    ),
]
Metrics = Annotated[
    Path | None,
    typer.Option("--metrics", metavar="FILE.prom", help="Write metrics for Prometheus' node_exporter here."),
]

Workers = Annotated[int | None, typer.Option("--workers", help="Reading processes. Default: one per core.")]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory", metavar="SIZE", help="Of all processes together, such as 12GB. Default: 60 % of what there is."
    ),
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads while it learns. Default: torch's.")]
Device = Annotated[str, typer.Option("--device", help="Torch device.")]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", min=1, help="Images in one forward pass. Default: 4, and 64 on a card.")
]
Backend = Annotated[
    str | None,
    typer.Option(
        "--backend",
        metavar="NAME|auto|DIR",
        help="What computes images: see `medclip models calibrate`. Default: torch, float32.",
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="local|ray|ray:N",
        help="Who computes: this process, or N workers on Ray (RAY_ADDRESS). Default: local.",
        show_default=False,
    ),
]
Shard = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Do one part of N, beside others; see `medclip runs merge`."),
]
Add = Annotated[bool, typer.Option("--add", help="Take in files that came since; old rows stay.")]
MinConfidence = Annotated[
    float, typer.Option("--min-confidence", metavar="P", help="Least probability to believe an inferred modality.")
]
StageTo = Annotated[
    Path | None,
    typer.Option("--stage-to", metavar="DIR", help="Copy slides to this folder on a quick disk before they are read."),
]
RetryFailed = Annotated[
    str | None,
    typer.Option("--retry-failed", metavar="REASON", help="Try files that failed once more: a reason, or 'all'."),
]
Thumbnails = Annotated[
    bool, typer.Option("--thumbnails/--no-thumbnails", help="Keep small images for the report, or none.")
]

ScoredTasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task", metavar="NAME", help="Task to score. May be repeated. Default: all that the model's card lists."
    ),
]
ScoredPrompts = Annotated[
    list[str] | None,
    typer.Option("--prompt", metavar="TEXT", help="Score this; 'TEXT | TEXT' are ways to say it. Repeatable."),
]
ScoredAgainst = Annotated[
    list[str] | None,
    typer.Option(
        "--against", metavar="TEXT", help="What each prompt is compared with, in their order. Default: 'no TEXT'."
    ),
]
ResultsTo = Annotated[
    Path | None,
    typer.Option(
        "--results-to",
        metavar="DIR",
        help="Write each study's results for other systems here; they name patients.",
        show_default=False,
    ),
]
ResultsAs = Annotated[
    list[str] | None,
    typer.Option(
        "--results-as",
        metavar="sr|sc|fhir-r4b|fhir-r5",
        help="Form of those results; sc: heat maps. Repeatable. Default: sr.",
    ),
]
Query = Annotated[
    str, typer.Option("--query", metavar="KEY=VALUE,...", help="Which studies of a PACS, by DICOM keywords.")
]
Spool = Annotated[
    str | None,
    typer.Option(
        "--spool", metavar="SIZE", help="What of a PACS or store may lie on this disk at once. Default: 20GB."
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Look at the files, say what would be done, and write nothing.")
]
StoreTo = Annotated[
    str | None,
    typer.Option(
        "--store-to", metavar="URL", help="Send the DICOM results to this PACS, each once.", show_default=False
    ),
]


def shares(text: str) -> dict[str, float]:
    """Read the shares of `--splits`.

    Raises:
        MedclipError: WRONG_USE.
    """
    from medclip.errors import MedclipError, Reason
    from medclip.files.recipes.key_value import key_values

    try:
        return {name: float(share) for name, share in key_values(text.split(","), "--splits", SPLITS).items()}
    except ValueError:
        raise MedclipError(Reason.WRONG_USE, f"--splits takes {SPLITS}, which {text!r} is not.") from None
