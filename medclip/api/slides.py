"""The verbs of `medclip.slides`: stages over a folder of slides, and what is learned and answered of their vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.api.groups.asking import Chance, LabelledTable, Overridden, Resamples, TableTask, WithModel
from medclip.api.groups.reading import Identity, Limits, Patches, PatientColumn, Policies, Stains
from medclip.api.groups.running import (
    Additions,
    Batches,
    Device,
    HashedPaths,
    Machine,
    Overwriting,
    Recipe,
    Staging,
    Told,
    settings_of,
)
from medclip.options import argument, one_of, option, options
from medclip.verbs import recipe_of, verb

if TYPE_CHECKING:
    from medclip.slides.exchange import SlideExport
    from medclip.slides.learning.head_file import SlideHead
    from medclip.slides.learning.learn import LearnedSlides
    from medclip.slides.learning.predict import SlidePredictions
    from medclip.slides.slide_store import SlideStore
    from medclip.slides.stages.run_stage import StageRun
    from medclip.text.vocabulary.task import Task


@options
class SlideTable:
    """What a table says of slides."""

    heading = "How files are read"

    table: Any = option(
        "Table that names study, patient and mpp_um of slides: CSV, TSV or Parquet, whatever its suffix. In Python "
        "also a data frame.",
        default=None,
        kind=Path,
        place=True,
    )


@options
class StoreOfSlides:
    """Vectors of slides."""

    store: SlideStore | str | Path = argument(
        "Folder that `medclip slides embed` wrote. In Python also one that is open.", kind=Path, place=True
    )


@options
class SlideFolder:
    """Slides, and what stages write of them."""

    path: str | Path = argument(
        "Slide, or folder of slides. Files that are no slides have their row and are passed over.",
        place=True,
        present="file or folder",
    )
    out: str | Path = argument(
        "Folder to write, of all stages; one that holds something else is refused. The same call goes on where it was "
        "stopped, and takes what other stages left there if their options and the slides are the same.",
        named=True,
        of_call=True,
        place=True,
    )


@options
class Outlines:
    """What QuPath opens."""

    heading = "Output"

    geojson: bool = option("Write outlines that QuPath opens.", default=True)


@options
class Grid(Patches):
    """Where patches of slides lie."""

    heading = "Patches"

    overlap_px: int = option("Number of rows and columns that neighbours share.", default=0, least=0, often=True)
    min_coverage: float = option(
        "Least share of a patch that is tissue.", default=0.5, least=0, most=1, form="P", often=True
    )
    by_piece: bool = option(
        "Count the grid from the corner of each piece of tissue, not from that of the slide.", default=False
    )


@options
class SlideTissueOptions(
    Told,
    Limits,
    Recipe,
    SlideFolder,
    Machine,
    SlideTable,
    Policies,
    Identity,
    Staging,
    Additions,
    HashedPaths,
    Outlines,
):
    """What `slides tissue` is asked."""


@options
class SlidePlacesOptions(
    Told,
    Limits,
    Recipe,
    SlideFolder,
    Machine,
    Grid,
    SlideTable,
    Policies,
    Identity,
    Staging,
    Additions,
    HashedPaths,
    Outlines,
):
    """What `slides patches` is asked."""


@options
class SlideEmbedOptions(
    Told,
    Limits,
    Recipe,
    SlideFolder,
    WithModel,
    Machine,
    Device,
    Batches,
    Grid,
    Stains,
    SlideTable,
    Policies,
    Identity,
    Staging,
    Additions,
    HashedPaths,
):
    """What `slides embed` is asked."""

    qc: bool = option(
        "Measure blur, ink, dirt and folds of each patch. It takes 5 to 8 ms a patch; none is dropped for it.",
        default=False,
        often=True,
        heading="Patches",
    )
    dtype: str = option(
        'How vectors are stored: "float32", or "float16" in half the room.',
        default="float32",
        form="TYPE",
        choices=("float32", "float16"),
        heading="Output",
    )


@options
class SlideLearnOptions(
    Told,
    Limits,
    Recipe,
    TableTask,
    PatientColumn,
    Chance,
    Resamples,
    Overridden,
    Identity,
    Overwriting,
    LabelledTable,
    StoreOfSlides,
):
    """What `slides learn` is asked."""

    labels: Any = argument(
        "Table with a column `slide` (or `file`, `key`), one of patients, and those of the labels: CSV, TSV or "
        "Parquet, whatever its suffix. In Python also a data frame.",
        kind=Path,
        named=True,
        place=True,
    )
    label: str | Sequence[str] = argument(
        "Column of class names, or one of 0 and 1 for each of several findings.",
        default=(),
        form="COLUMN",
        named=True,
        needed=False,
    )
    out: str | Path = option("Folder of the head to write; one that holds something else is refused.", place=True)
    years: int = option(
        "Number of years: the risk of an event by the end of year 1 to K is learned instead of labels. The table then "
        "has the columns `event_months` and `followup_months`.",
        default=0,
        least=0,
        form="K",
        often=True,
    )
    pooling: str = option(
        "How patches become one answer: mean, abmil or acmil. ACMIL keeps its branches apart, so that it misses "
        "lesions of a few patches.",
        default="abmil",
        form="NAME",
        often=True,
        heading="How it learns",
    )
    compare: str | Sequence[str] = option(
        "Other pooling that is measured on the same folds.",
        default=(),
        form="POOLING",
        often=True,
        heading="How it learns",
    )
    num_folds: int = option(
        "Number of folds of the cross-validation by patient, at most.", default=5, least=2, heading="How it learns"
    )

    rules = (
        one_of(
            "label",
            "years",
            "either columns of labels are learned or the risk of an event.",
            hint="Name columns with --label, or years with --years.",
        ),
    )


@options
class SlidePredictOptions(Told, Limits, Recipe, WithModel, Overwriting, StoreOfSlides):
    """What `slides predict` is asked."""

    out: str | Path = option("Folder to write; one that holds something else is refused.", place=True)
    task: Task | str | Path | None = option(
        "Task that is asked in words: one of the vocabulary, or a task file of your own. The model's pack must be the "
        "one that the slides were embedded with.",
        default=None,
        form="NAME|FILE",
        kind=str,
        often=True,
    )
    head: SlideHead | str | Path | None = option(
        "Folder of a head that `medclip slides learn` wrote. In Python also the head itself.",
        default=None,
        form="DIR",
        kind=Path,
        often=True,
        place=True,
    )
    top_patches: int = option(
        "Number of patches of each class that stand for the slide, where a task is asked in words.",
        default=50,
        least=1,
        form="K",
        often=True,
    )
    images: str | Path | None = option(
        "Folder of the slides, as embedding had it, to draw maps on. Default: maps are drawn on their own.",
        default=None,
        form="DIR",
        often=True,
        place=True,
        heading="Maps",
    )
    dicom: bool = option(
        "Write DICOM parametric maps too. Those of DICOM slides name their patient and study.",
        default=False,
        often=True,
        heading="Maps",
    )

    rules = (
        one_of(
            "task",
            "head",
            "either a task is asked in words or a learned head answers.",
            hint="Name one of --task and --head.",
        ),
    )


@options
class SlideExportOptions(Told, Limits, Recipe, Overwriting, StoreOfSlides):
    """What `slides export` is asked."""

    out: str | Path = argument("Folder to write; one that holds something else is refused.", named=True, place=True)
    as_: str = option(
        "Form of what is written: anndata (.h5ad), or spatialdata (.zarr), which LazySlide opens.",
        default="anndata",
        form="FORM",
        choices=("anndata", "spatialdata"),
        heading="Output",
    )


@verb(SlideTissueOptions)
def tissue(options: SlideTissueOptions) -> StageRun:
    """Find the tissue of slides: a mask and its outlines for each. The same command goes on after a stop.

    Returns:
        A row for each slide (`.rows`, `.to_pandas()`), counts and exit code.

    Raises:
        MedclipError: For a call that cannot be carried out. A slide that cannot be read raises nothing: it has its row.
    """
    return run_slides("tissue", options)


@verb(SlidePlacesOptions)
def places(options: SlidePlacesOptions) -> StageRun:
    """Lay a grid over the tissue of slides: the places of their patches. The same command goes on after a stop.

    It takes the tissue that `medclip slides tissue` left in the same folder. In Python `medclip.slides.patches` reads
    the patches of one slide; this writes down where those of many are.

    Returns:
        As `tissue`.

    Raises:
        MedclipError: As `tissue`; WRONG_USE for impossible sizes.
    """
    return run_slides("patches", options)


@verb(SlideEmbedOptions)
def embed(options: SlideEmbedOptions) -> StageRun:
    """Compute the vectors of all patches of slides, one file for each slide. The same command goes on after a stop.

    It takes the tissue and the grids that the other stages left in the same folder, where their options are the same.

    Returns:
        As `tissue`; `.store` reads the vectors, `.time` says where time went.

    Raises:
        MedclipError: As `places`; WRONG_USE for a model of other images.

    Example:
        >>> import medclip
        >>> run = medclip.slides.embed("slides", "out", model="my-pathology-pack")  # doctest: +SKIP
        >>> for features in run.store:  # doctest: +SKIP
        ...     print(features.key, features.features_ND.shape)
    """
    return run_slides("embed", options)


def run_slides(stage: str, options: Any, *, retry: str | None = None) -> StageRun:
    """Run a stage over a folder of slides.

    Args:
        stage: tissue, patches or embed.
        options: Value of the stage's class of options.
        retry: Try the files once more that failed: those of a reason, or all for "".

    Raises:
        MedclipError: As the verbs.
    """
    from medclip.api.asked import what_was_asked
    from medclip.api.run_arguments import path_of, table_of
    from medclip.errors import refuse_missing
    from medclip.progress import Silent
    from medclip.runs.call import Call
    from medclip.runs.planning.options import ScoreOptions
    from medclip.slides.stages.options import GridOptions
    from medclip.slides.stages.run_stage import run_stage

    table, root = table_of(options.table), path_of(options.path, "the folder of slides")
    refuse_missing(root)
    of_model = {name: getattr(options, name) for name in ("model", "device", "batch_size") if hasattr(options, name)}
    call = Call(
        root,
        path_of(options.out, "the output folder"),
        options=ScoreOptions(table=table, hash_paths=options.hash_paths),
        key_file=None if options.key_file is None else Path(options.key_file),
        settings=settings_of(options),
        progress=options.progress or Silent(),
        add=options.add,
        retry_failed=retry,
        asked=what_was_asked(options),
        recipe=recipe_of(options),
        **of_model,
    )
    of_stage = {name: getattr(options, name) for name in ("dtype", "qc", "stain", "geojson") if hasattr(options, name)}
    stage_to = None if options.stage_to is None else Path(options.stage_to)
    grid = GridOptions()
    if isinstance(options, Grid):
        grid = GridOptions(
            options.size_px, options.patch_mpp_um, options.overlap_px, options.min_coverage, options.by_piece
        )
    return run_stage(call, stage, grid, stage_to=stage_to, **of_stage)


def stage_options(stage: str) -> Any:
    """Return the class of the options of a stage: tissue, patches or embed."""
    return {"tissue": SlideTissueOptions, "patches": SlidePlacesOptions, "embed": SlideEmbedOptions}[stage]


def slides_again(stage: str, arguments: Mapping[str, Any], *, retry: str) -> StageRun:
    """Run a stage with arguments that its ledger kept, and try files once more that failed.

    Args:
        stage: tissue, patches or embed.
        arguments: Options of the stage, by name.
        retry: Reason of the slides that are tried again, "" for any.
    """
    return run_slides(stage, stage_options(stage)(**arguments), retry=retry)


@verb(SlideLearnOptions)
def learn(options: SlideLearnOptions) -> LearnedSlides:
    """Learn a head that answers for whole slides, and measure it on patients that were left out.

    Cross-validation by patient measures; the head that is kept learned from all slides, in the same way.

    Returns:
        The head with its figures.

    Raises:
        MedclipError: WRONG_USE, OUTPUT_IN_USE, TABLE_INVALID, NOTHING_TO_DO; what opening the store raises.

    Example:
        >>> import medclip
        >>> medclip.slides.learn("store", "labels.csv", "grade", out="head", compare="mean")  # doctest: +SKIP
    """
    from medclip.files.pseudonyms import load_key
    from medclip.progress import Silent
    from medclip.settings import Settings
    from medclip.slides.learning.labels import read_slide_labels
    from medclip.slides.learning.learn import Validation, claim_head, learn_slides, recipe_of
    from medclip.slides.slide_store import open_slide_store

    store, folder = open_slide_store(options.store), Path(options.out)
    recipe = recipe_of(options.pooling, options.overrides)
    columns, others = (
        (names,) if isinstance(names, str) else tuple(names) for names in (options.label, options.compare)
    )
    claim_head(folder, store.folder, overwrite=options.overwrite)
    key = load_key(options.settings or Settings(), path=None if options.key_file is None else Path(options.key_file))
    slides = read_slide_labels(
        store,
        options.labels,
        columns,
        patient=options.patient,
        task=options.task,
        years=options.years,
        key=key,
    )
    validation = Validation(others, options.num_folds, options.num_resamples)
    return learn_slides(slides, store, recipe, validation, options.seed, folder, options.progress or Silent())


@verb(SlidePredictOptions)
def predict(options: SlidePredictOptions) -> SlidePredictions:
    """Answer a question for every slide of a store, in words or by a learned head, and draw what each answer rests on.

    Zero-shot, a slide's answer is the mean over the `top_patches` patches that match each class best, and the map the
    match of each patch with the most probable class against the others. A learned head's map is what each patch adds to
    that class; of a risk it is the attention.

    `out` gets predictions.csv and .parquet, and maps/KEY.png, .geojson and, if asked for, .dcm.

    Returns:
        One row for each slide of the store, also for those that have no vectors.

    Raises:
        MedclipError: WRONG_USE for neither or both of task and head, for a task about another modality and for vectors
            of another pack; OUTPUT_IN_USE; what opening store, head and pack raises.
    """
    from medclip.progress import Silent
    from medclip.settings import Settings
    from medclip.slides.heat_maps import MapFiles
    from medclip.slides.learning.predict import answer_slides, claim_answers, question_in_words, question_of_head
    from medclip.slides.slide_store import open_slide_store

    store, folder = open_slide_store(options.store), Path(options.out)
    claim_answers(folder, store.folder, overwrite=options.overwrite)
    if options.head is not None:
        question = question_of_head(options.head)
    else:
        assert options.task is not None
        question = question_in_words(options.task, options.model, store, options.top_patches)
    images = None if options.images is None else Path(options.images)
    files = MapFiles(images, options.dicom, question.software, options.settings or Settings())
    return answer_slides(store, question, files, folder, options.progress or Silent())


@verb(SlideExportOptions)
def export(options: SlideExportOptions) -> SlideExport:
    """Write the vectors and places of patches for other programs, one file or folder for each slide.

    Both forms have places in pixels of the finest resolution, coverage and quality of each patch, and the tile spec in
    the form of LazySlide (wsidata). `wsidata.open_wsi(slide, store="KEY.zarr")` opens the SpatialData folder, which
    takes the extra `spatialdata` and has tissue outlines where `medclip slides tissue` left some in the store.

    `out` gets KEY.h5ad or KEY.zarr, and slides.csv, which says which slide a key is.

    Returns:
        One row for each slide of the store, also for those that have no vectors.

    Raises:
        MedclipError: WRONG_USE for another form; OUTPUT_IN_USE; MISSING_CODEC without spatialdata; what opening the
            store raises.

    Example:
        >>> import medclip
        >>> medclip.slides.export("store", "for_scanpy")  # doctest: +SKIP
    """
    from medclip.progress import Silent
    from medclip.slides.exchange import export_slides
    from medclip.slides.slide_store import open_slide_store

    return export_slides(
        open_slide_store(options.store),
        Path(options.out),
        options.as_,  # pyright: ignore[reportArgumentType] (one of its choices)
        overwrite=options.overwrite,
        progress=options.progress or Silent(),
    )
