"""Groups of options that verbs share: each option stands once, with one type, one default and one meaning.

A verb's class of options takes the groups that it needs as bases; see `medclip.options`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.options import argument, option, options
from medclip.settings import DEFAULT_MODEL, Settings, read_choices

if TYPE_CHECKING:
    from medclip.embeddings.open_embeddings import Embeddings
    from medclip.files.grouping.studies import GroupBy
    from medclip.files.key_value import Overrides
    from medclip.models.model import Model
    from medclip.progress import Progress
    from medclip.retrieval.question import Example
    from medclip.sample import Modality
    from medclip.text.vocabulary.own_words import Asked
    from medclip.text.vocabulary.task import Task


@options
class Told:
    """Who is told of a call."""

    progress: Progress | None = option(
        "Object that is told how far the call is.", default=None, kind=None, of_call=True
    )


@options
class Limits:
    """What may be read."""

    settings: Settings | None = option(
        "Limits of what is read, and the home of the identity key; medclip's own where None.",
        default=None,
        kind=None,
    )


@options
class Recipe:
    """What every verb takes whose own `recipe` is of no other kind."""

    recipe: str | Path | None = option(
        "YAML file of these options, or run.json (audit.json) of an earlier run. It has values by the "
        "names of options; what is named beside it overrides it.",
        default=None,
        form="FILE",
        often=True,
        of_call=True,
        place=True,
        heading="Output",
    )


@options
class Machine:
    """What a call may take of this machine."""

    heading = "This machine"

    workers: int | None = option(
        "Number of reading processes. Default: one for each core.", default=None, often=True, beside=True
    )
    memory: int | str | None = option(
        "Memory of all processes together, such as 12GB. Default: 60 % of what the machine or its cgroup has.",
        default=None,
        form="SIZE",
        kind=str,
        beside=True,
    )


@options
class Device:
    """Where a model computes."""

    heading = "This machine"

    device: str = option("Torch device that the model computes on.", default="cpu", often=True)


@options
class Batches:
    """How many images a model computes at once."""

    heading = "This machine"

    batch_size: int | None = option(
        "Number of images in one forward pass. Default: 4, and 64 on a card. It is part of what a run is, as the "
        "device is: other ones may change the last bits.",
        default=None,
        least=1,
    )


@options
class Encoder:
    """How a model computes vectors of images."""

    heading = "This machine"

    backend: str | Path | None = option(
        "What computes the images. The name of a back-end, the folder of a calibration by `medclip models calibrate`, "
        'or "auto" for the one in the settings\' home. Default: torch in float32. It is part of what a run is.',
        default=None,
        form="NAME|auto|DIR",
        kind=str,
        place=True,
    )


def _by_key(option: str, named: Any) -> dict[str, Any]:
    """Return values by their keys, whichever form they are named in."""
    from medclip.files.key_value import read_overrides

    texts = [named] if isinstance(named, str) else named
    if not isinstance(texts, Mapping) and not (
        isinstance(texts, Sequence) and all(isinstance(text, str) for text in texts)
    ):
        raise ValueError(f"takes KEY=VALUE, or names with their values, not {named!r}")
    return read_overrides(texts, option)


def _choices(named: Any) -> dict[str, Any]:
    return read_choices(_by_key("--reading", named))


@options
class Policies:
    """What is read where a file leaves a choice."""

    heading = "How files are read"

    reading: Overrides = option(
        "What is read where a file leaves a choice. uneven_slices=resample puts series with gaps or uneven spacing on "
        "a regular grid (default: reject); mpp_um=0.25 are the micrometres per pixel of slides that state none, or "
        "that of a printer; accept_unterminated=true reads compressed images that lack their end marker and nothing "
        "else, as some devices write them.",
        default=(),
        form="KEY=VALUE",
        read=_choices,
    )


@options
class NamedModality:
    """Of which modality files are."""

    heading = "How files are read"

    modality: Modality | str | None = option(
        "Modality of the files that neither a table nor their header names.",
        default=None,
        form="M",
        kind=str,
        often=True,
    )


@options
class AnyModality(NamedModality):
    """Of which modality files are, where images of which nobody knows it are welcome, too."""

    heading = "How files are read"

    modality: Modality | str | None = option(
        "Modality of the files that neither a table nor their header names; `unknown` where nobody knows it: those "
        "that are images are read as they are (the generic adapter), and nothing but a search is asked of them.",
        default=None,
        form="M",
        kind=str,
        often=True,
    )


@options
class Believed:
    """How sure an inferred modality must be."""

    heading = "How files are read"

    min_confidence: float = option(
        "Least probability at which an inferred modality is believed.", default=0.8, least=0, most=1, form="P"
    )


@options
class FileTable:
    """What a table says of files."""

    heading = "How files are read"

    table: Any = option(
        "Table that names study, patient and modality of files. It is CSV, TSV or Parquet, whatever its suffix; in "
        "Python also a data frame.",
        default=None,
        often=True,
        kind=Path,
        place=True,
    )


@options
class Studies:
    """How files become studies."""

    heading = "How files are read"

    group_by: GroupBy = option(
        'How files become studies: by UID, table and folder ("auto"), by "folder", or one "file" each.',
        default="auto",
        kind=str,
    )


@options
class Identity:
    """Whom patients and studies are known as."""

    heading = "How files are read"

    key_file: str | Path | None = option(
        "Identity key that patients and studies are hashed with. Default: the one in the settings' home.",
        default=None,
        place=True,
    )


@options
class WorkFolder:
    """Where a run whose results go to a store keeps its ledger."""

    heading = "Unattended"

    work: str | Path | None = option(
        "Folder on a disk of this machine that holds the ledger, where the output folder lies in a store. The same "
        "call with the same work folder goes on.",
        default=None,
        form="DIR",
        of_call=True,
        place=True,
    )


@options
class Logged:
    """What a run that goes on by itself tells others."""

    heading = "Unattended"

    log: str | Path | Sequence[str | Path] = option(
        "File that events are appended to as JSON lines: counts and reasons, no path and no identifier. One whose name "
        "ends in .prom has metrics for Prometheus' node_exporter in their place.",
        default=(),
        form="FILE",
        kind=Path,
        of_call=True,
        place=True,
    )


@options
class Limited:
    """How much of a run a call does."""

    heading = "Unattended"

    limit: int | None = option(
        "Number of files after which the run stops. They are taken in blocks of 32; the same call without it goes on, "
        "and ends in the same bytes as if it had never been limited.",
        default=None,
        least=1,
        of_call=True,
    )
    dry_run: bool = option(
        "Look at the files, say what would be done, and write nothing. In Python `.counts`, `.files` and `.planned` of "
        "what is returned say it; of a PACS or a store nothing is fetched.",
        default=False,
        of_call=True,
    )


@options
class Engines:
    """Who computes a run."""

    heading = "Unattended"

    engine: str = option(
        'Who computes: this process ("local"), or N workers on Ray ("ray:N"). "ray" alone is one worker for each '
        "node, or for each GPU; RAY_ADDRESS names the cluster, and without it one is started for the run. Tables are "
        "the same.",
        default="local",
        form="local|ray|ray:N",
        beside=True,
    )
    shard: str | None = option(
        "Part of the run that is done, I/N, in a folder of its own beside others on other machines. `medclip runs "
        "merge` makes the tables of the whole run of all N.",
        default=None,
        form="I/N",
        beside=True,
    )


@options
class OwnWords:
    """What is asked of a model in one's own words."""

    heading = "What is asked"

    prompt: Asked = option(
        'What to score in your own words; "TEXT | TEXT" are ways to say one thing. In Python a text, several (each a '
        "class of its own), or a mapping of names to texts; the tables have by how much the answer changes with the "
        "wording.",
        default=(),
        form="TEXT",
        often=True,
    )
    against: Asked = option(
        "What each prompt is compared with, in their order or by name. Default: 'no TEXT'.", default=(), form="TEXT"
    )


@options
class NamedTasks:
    """Which tasks of the vocabulary are asked."""

    heading = "What is asked"

    task: str | Sequence[str] = option(
        "Task to score. Default: those of the pack's card that fit each study.", default=(), form="NAME", often=True
    )


@options
class Questions(OwnWords, NamedTasks):
    """What is asked of a model."""


@options
class Templates:
    """How prompts are phrased."""

    heading = "What is asked"

    templates: bool = option(
        "Put prompts that but name a finding, in three words or fewer, into the sentences of the study's modality, "
        "such as 'an X-ray image with {}'.",
        default=True,
    )


@options
class HashedPaths:
    """How tables name files."""

    heading = "Output"

    hash_paths: bool = option(
        "Put keyed hashes in the place of paths in the tables, and in the ledger once the run is finished: names of "
        "files may identify patients.",
        default=False,
    )


@options
class Additions:
    """What becomes of files that came after an earlier call."""

    heading = "Unattended"

    add: bool = option(
        "Take in files that came since an earlier call on this folder, and those that changed; rows of all others "
        "stay. Without it a folder that grew is refused.",
        default=False,
        of_call=True,
    )


@options
class WithModel:
    """Which model is asked."""

    model: str | Path | Model = option(
        "Name or folder of a model pack. In Python also a loaded model.",
        default=DEFAULT_MODEL,
        form="PACK",
        kind=str,
        often=True,
        place=True,
    )


@options
class Overwriting:
    """What becomes of an earlier result."""

    heading = "Output"

    overwrite: bool = option("Replace what is there already.", default=False, often=True, of_call=True)


@options
class Chance:
    """What is drawn at random."""

    seed: int = option("Seed of all chance: the same number draws the same.", default=0, least=0)


@options
class Resamples:
    """How sure a figure is."""

    num_resamples: int = option("Number of resamples of patients.", default=2000, least=1)


@options
class PatientColumn:
    """Who is a patient."""

    patient: str | None = option(
        "Column that names the patient; `file` where each file is a patient of its own.", default=None, form="COLUMN"
    )


@options
class TableImages:
    """Where files of a table lie."""

    images: str | Path | Embeddings | None = option(
        "Folder that files of a table are relative to, or of embeddings, and then no image is read. Default: the "
        "table's.",
        default=None,
        form="DIR",
        place=True,
    )


@options
class ReportPaths:
    """How pages name files."""

    heading = "Output"

    report_paths: bool = option(
        "Name files in the report. Their names may identify patients; by default files have row number and format.",
        default=False,
        of_call=True,
    )


# Models and sheets


@options
class Pack:
    """Which pack a call is about."""

    model: str | Path | Model = argument(
        "Name or folder of a model pack. In Python also a loaded model.",
        default=DEFAULT_MODEL,
        form="PACK",
        kind=str,
        place=True,
    )


@options
class NamedPack:
    """What a new pack is called."""

    name: str | None = option("Name on the card of the new pack.", default=None, often=True)


@options
class OneOfMany:
    """Which one is meant of several that lie in one place."""

    number: int = option("Which image, series or record of a folder, from 1.", default=1, least=1)


# Adaptation, training and evaluation.


@options
class LabelledTable:
    """A table of labelled files."""

    labels: Any = argument(
        "Table of labelled files: CSV, TSV or Parquet, whatever its suffix, with `file`, a column of patients and the "
        "labels. A column `split` stands. In Python also a data frame.",
        kind=Path,
        named=True,
        place=True,
    )
    label: str | Sequence[str] = argument(
        "Column of class names, or one of 0 and 1 for each of several findings.", form="COLUMN", named=True
    )


@options
class TableTask:
    """What the labels of a table mean."""

    heading = "Table and patients"

    task: Task | str | Path | None = option(
        "Task of the vocabulary, or a task file of your own. Default: made of the table.",
        default=None,
        form="NAME|FILE",
        kind=str,
    )


@options
class LabelOrder:
    """The order of the values of a column of labels."""

    heading = "Table and patients"

    order: str | Sequence[str] = option(
        "Values of the column of labels, steps of a scale, from the lowest to the highest and with commas between "
        "them: A,B,C,D. What measures steps is then measured, and the ways of adapting that learn steps can be taken.",
        default=(),
        form="VALUES",
    )


@options
class TestShare:
    """How many patients are only measured."""

    heading = "Table and patients"

    test_share: float = option(
        "Share of patients to test on, where the table has no column `split`.", default=0.2, least=0, most=1, form="X"
    )


@options
class Overridden:
    """What is learned otherwise than by default."""

    heading = "How it learns"

    overrides: Overrides = option(
        "Settings to change: --set steps=200. In Python a mapping, or texts such as `steps=200`.",
        default=(),
        form="KEY=VALUE",
        often=True,
        word="set",
        read=partial(_by_key, "--set"),
    )


@options
class Resuming:
    """What becomes of a stopped run."""

    heading = "Output"

    resume: bool = option(
        "Go on with a stopped run in the output folder; else a folder with a run in it is refused.",
        default=True,
        of_call=True,
    )


def settings_of(given: Any) -> Settings:
    """Return the settings that a call reads with: those it was given, with its policies and its share of the machine.

    Args:
        given: A value of a class of options.

    Raises:
        MedclipError: WRONG_USE for a policy, a size or a number of processes that is none.
    """
    settings = given.settings or Settings()
    if isinstance(given, Policies):
        named: Any = given.reading  # as `_choices` returns it; () where none is named
        settings = replace(settings, policy=replace(settings.policy, **dict(named)))
    if isinstance(given, Machine):
        settings = settings.on_machine(given.workers, given.memory)
    return settings


@options
class RunFolder:
    """A run that is there."""

    folder: str | Path = argument(
        "Output folder of a run; of one that is published in a store, its work folder.", place=True, present="folder"
    )


# Slides and their patches.


@options
class Staging:
    """How slides come from slow storage."""

    heading = "This machine"

    stage_to: str | Path | None = option(
        "Folder on a quick disk that slides are copied to before they are read.",
        default=None,
        form="DIR",
        place=True,
        beside=True,
    )


@options
class Patches:
    """How large patches of slides are."""

    heading = "Patches"

    size_px: int = option("Number of rows and columns of a patch.", default=256, least=1, often=True)
    patch_mpp_um: float = option(
        "Micrometres per pixel of patches, whatever the slide's are.", default=0.5, form="UM", often=True
    )


@options
class Stains:
    """How colours of slides are made alike."""

    heading = "Patches"

    stain: str | None = option(
        "Way in which colours are made alike before patches are encoded, by an estimate of each slide. A slide that "
        "none can be made of is encoded as it was scanned.",
        default=None,
        form="NAME",
        choices=("hed", "macenko", "reinhard"),
    )


@options
class Splits:
    """Which patients a model learns from, and which it is measured on."""

    splits: str | Sequence[str] | Mapping[str, float] = option(
        "Shares of the patients that come to each split. Default: train=0.7,val=0.1,test=0.2. A column `split` of the "
        "table goes before it. In Python also a mapping.",
        default=(),
        form="NAME=SHARE,...",
        kind=str,
        often=True,
    )


@options
class ImageFormat:
    """How shards hold images."""

    heading = "What shards hold"

    image_format: str = option(
        "How images are stored: png keeps every grey value, jpeg is for large images and large sets.",
        default="png",
        choices=("png", "jpeg"),
    )


@options
class StoredImages(ImageFormat):
    """How shards of images are written."""

    heading = "What shards hold"

    max_side_px: int = option("Longest side of stored images, in pixels.", default=288, least=16, often=True)
    quality: int = option("Quality of JPEG.", default=95, least=1, most=100)
    samples_per_shard: int = option("Number of samples in one tar.", default=500, least=1)


# Captions, shards, search, heat maps, monitor.


@options
class OutFolder:
    """Where results go."""

    out: str | Path | None = option(
        "Folder to write; one that holds something else is refused. In Python nothing is written without it.",
        default=None,
        form="DIR",
        needed=True,
        often=True,
        place=True,
    )


@options
class ImageRoot:
    """Where the files of a table lie."""

    images: str | Path | None = option(
        "Folder that files of a table are relative to. Default: the table's.",
        default=None,
        form="DIR",
        often=True,
        place=True,
    )


@options
class TextTables:
    """How tables of text were written."""

    encoding: str = option(
        "Encoding of tables that are no UTF-8: cp1252, latin-1, utf-16-le.", default="utf-8", form="NAME"
    )


@options
class Ranked:
    """What is ranked by an example, and how many places are returned."""

    like: Example | Sequence[Example] | None = option(
        "Example: a file, its number in the folder of embeddings, or a patch as KEY@TOP,LEFT in µm. One that is in the "
        "folder (by the hash of its bytes) is not read again. The vectors of several are averaged.",
        default=None,
        form="FILE|N",
        kind=str,
        often=True,
        heading="What is looked for",
    )
    num_hits: int = option("Number of hits.", default=50, least=1, often=True, heading="Output")
    out: str | Path | None = option(
        "Table of the hits to write, as .parquet or .csv.",
        default=None,
        form="FILE",
        often=True,
        of_call=True,
        place=True,
        heading="Output",
    )
