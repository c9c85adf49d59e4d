"""The verbs of `medclip.shards`: build shards of a table, index tars of others, and check either."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.api.groups.asking import Chance
from medclip.api.groups.reading import Identity, ImageRoot, Limits, NamedModality, PatientColumn, Splits, StoredImages
from medclip.api.groups.running import Machine, Recipe, Told, settings_of
from medclip.options import argument, excludes, option, options
from medclip.verbs import verb

if TYPE_CHECKING:
    from medclip.shards.reading.check_folder import ShardCheck
    from medclip.shards.reading.index_tars import IndexReport
    from medclip.shards.writing.build import ShardReport
    from medclip.shards.writing.splits import ShardPlan


@options
class BuildOptions(Told, Limits, Recipe, Splits, ImageRoot, PatientColumn, StoredImages, Chance, Identity, Machine):
    """What `shards.build` is asked."""

    table: Any = argument(
        "Table of images: CSV, TSV or Parquet, whatever its suffix, with file, patient, modality and more. In Python "
        "also a data frame.",
        kind=Path,
        place=True,
        present="table",
    )
    out: str | Path = argument(
        "Folder to write; one that holds something else is refused.", form="DIR", named=True, place=True
    )
    volumes: bool = option(
        "Store volumes and loops whole, for models of volumes; reject images. Voxels are stored as they are read (HU "
        "of CT), at their own spacing, whatever the longest side is; a tar is closed at 1 GB.",
        default=False,
        often=True,
        heading="What shards hold",
    )
    signals: bool = option(
        "Store the twelve leads of ECGs, for models of ECGs; reject the rest. Leads are in whole microvolts at the "
        "record's own rate and unfiltered, so that rate, filter and length are choices of a recipe; of a record of "
        "more than five minutes its middle.",
        default=False,
        often=True,
        heading="What shards hold",
    )
    group: str | None = option(
        "What makes one sample of mammograms: all of an exam, or those of a breast. Views are stored in hanging order, "
        "and labels are the worst of the images' own. Rows that are none of the four views are rejected; a tar is "
        "closed at 1 GB.",
        default=None,
        choices=("exam", "breast"),
        often=True,
        heading="What shards hold",
    )
    dry_run: bool = option(
        "Say what the table holds; read no image and write nothing. In Python `.planned` of what is returned has it.",
        default=False,
        often=True,
        of_call=True,
        heading="Unattended",
    )

    rules = (
        excludes("volumes", "signals", "shards hold volumes or ECGs, not both.", hint="Build a folder of each kind."),
        excludes(
            "group",
            ("volumes", "signals"),
            "mammograms are grouped by exam or by breast, and volumes and ECGs not at all.",
        ),
    )


@verb(BuildOptions)
def build(options: BuildOptions) -> ShardReport:
    """Turn a table of images into shards, split by patient.

    Every image is read through its adapter. The same input gives the same bytes. Rows that cannot be used are listed in
    rejects.parquet and do not change the exit code. The seed decides splits, the order inside shards and the captions
    in the .txt members.

    Returns:
        What was built.

    Raises:
        MedclipError: TABLE_INVALID, PATIENT_OVERLAP, OUTPUT_IN_USE, WRONG_USE, DISK_FULL; NOTHING_TO_DO when no image
            at all could be read.
    """
    from medclip.files.pseudonyms import load_key
    from medclip.shards.writing.build import Form, ShardReport, build_shards
    from medclip.shards.writing.splits import read_shares

    settings = settings_of(options)
    out, images = Path(options.out), None if options.images is None else Path(options.images)
    if options.dry_run:
        return ShardReport.of_plan(out, _plan(options.table, options, options.group))
    form = Form(
        options.max_side_px,
        options.samples_per_shard,
        "jpeg" if options.image_format == "jpeg" else "png",
        options.quality,
        options.seed,
        load_key(settings, path=None if options.key_file is None else Path(options.key_file)),
        "volumes" if options.volumes else "signals" if options.signals else "images",
        "exam" if options.group == "exam" else "breast" if options.group else None,
    )
    return build_shards(
        options.table,
        out,
        form,
        splits=read_shares(options.splits),
        images=images,
        patient=options.patient,
        settings=settings,
        progress=options.progress,
    )


@options
class CheckOptions(Told, Limits, Recipe, Splits, ImageRoot, PatientColumn, Chance, Identity):
    """What `shards.check` is asked."""

    path: Any = argument(
        "Shard folder or its URL; or a table, before shards are built from it. In Python also a data frame.",
        kind=str,
        place=True,
        present="file or folder",
    )


@verb(CheckOptions)
def check(options: CheckOptions) -> ShardCheck | ShardPlan:
    """Check a shard folder: hashes, counts, splits. Or say what a table is understood to hold; nothing is written.

    Options are for tables; a folder needs none. Without the key of the build, patients may come to other splits.

    Returns:
        What was found. `.ok` says whether nothing is wrong with the folder, or no file of the table is missing.

    Raises:
        MedclipError: MISSING_FILE, TABLE_INVALID.
    """
    import os

    from medclip.files.stores import RemotePath, place_of
    from medclip.shards.reading.check_folder import check_shards

    if isinstance(options.path, str | Path):
        place = place_of(options.path)
        if isinstance(place, RemotePath) or not os.path.isfile(place):  # unlike Path.is_file, this takes any name
            return check_shards(place)
    return _plan(options.path, options, None)


def _plan(table: Any, options: BuildOptions | CheckOptions, group: Any) -> ShardPlan:
    """Count what a table holds. Patients are counted without a key where none is named, for nothing is written."""
    from medclip.files.pseudonyms import load_key
    from medclip.shards.writing.splits import plan_shards, read_shares

    key = b"" if options.key_file is None else load_key(settings_of(options), path=Path(options.key_file))
    return plan_shards(
        table,
        splits=read_shares(options.splits),
        seed=options.seed,
        key=key,
        images=None if options.images is None else Path(options.images),
        patient=options.patient,
        group=group,
    )


@options
class IndexOptions(Told, Limits, Recipe, NamedModality, Identity):
    """What `shards.index` is asked."""

    folder: str | Path = argument(
        "Folder of WebDataset tars, or its URL: an image with a txt or json each.", kind=str, place=True
    )
    source: str = option("Name of the set.", form="NAME", often=True)
    license_: str = option("Licence of the set, as stated by those who gave it.", often=True)
    split: str = option("Split that all samples are put in.", default="train", often=True)
    out: str | Path | None = option(
        "Folder to write the index to, which tars in a store need. Default: beside the tars.",
        default=None,
        form="DIR",
        often=True,
        place=True,
    )
    patient_field: str | None = option(
        "Field of the JSON that names the patient. Default: every sample is a patient of its own, and nothing can be "
        "said about patients on two sides.",
        default=None,
        form="NAME",
        often=True,
    )
    keep_textless: bool = option(
        "Keep images of which nothing is said, for training without words (`objective: masked`).",
        default=False,
        often=True,
    )


@verb(IndexOptions)
def index(options: IndexOptions) -> IndexReport:
    """Make WebDataset tars of others ready to train on, where they lie: hash every tar, find every sample.

    The tars are read and not changed. A sample is an image (png, jpg, jpeg, webp), and a text (txt) or a JSON file with
    the same key. The text may hold several captions in UniMed's packed form. Samples that are left out are counted by
    reason.

    Returns:
        What the index holds.

    Raises:
        MedclipError: MISSING_FILE or NOTHING_TO_DO when there are no tars or no samples; OUTPUT_IN_USE when there is an
            index; CORRUPT naming the tar that cannot be read; WRONG_USE; TABLE_INVALID when a sample has no such field.
    """
    from medclip.files.pseudonyms import load_key
    from medclip.runs.planning.options import parse_modality
    from medclip.shards.reading.foreign import ForeignSet
    from medclip.shards.reading.index_tars import index_shards

    key_file = None if options.key_file is None else Path(options.key_file)
    return index_shards(
        options.folder,
        ForeignSet(options.source, options.license_, parse_modality(options.modality)),
        split=options.split,
        out=None if options.out is None else Path(options.out),
        patient_field=options.patient_field,
        keep_textless=options.keep_textless,
        key=load_key(settings_of(options), path=key_file),
        progress=options.progress,
    )
