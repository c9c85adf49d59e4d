"""The verb `evaluate`: measure a model zero-shot on a suite of labelled sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.api.adapt import key_file_of
from medclip.api.groups.asking import OwnWords, Resamples, WithModel
from medclip.api.groups.reading import Identity, Limits, NamedModality, PatientColumn, TableImages
from medclip.api.groups.running import Batches, Device, Machine, Recipe, Told, settings_of
from medclip.options import argument, excludes, needs, option, options
from medclip.verbs import verb

if TYPE_CHECKING:
    from medclip.embeddings.open_embeddings import Embeddings
    from medclip.evaluation.zero_shot.suite import SuiteFile
    from medclip.evaluation.zero_shot.suite_result import SuiteResult
    from medclip.models.model import Model


@options
class EvaluateOptions(
    Told,
    Limits,
    Recipe,
    OwnWords,
    Batches,
    Device,
    Machine,
    Identity,
    Resamples,
    TableImages,
    NamedModality,
    PatientColumn,
    WithModel,
):
    """What `evaluate` is asked."""

    data: str | Path = argument(
        "Folder with one folder for each set of the suite; with --prompt a table of labelled files. A set has "
        "`labels.csv` (file, label, perhaps patient and split), or one folder for each class. The table has `file`; it "
        "may be named by the folder of its labels.csv.",
        named=True,
        form="DIR|TABLE",
        place=True,
    )
    label: str | Sequence[str] = option(
        "Column that says whether each prompt is true, in their order: 1 or 0, or of a column of names COLUMN=VALUE. "
        "An empty cell, or -1, is not known.",
        default=(),
        form="COLUMN[=VALUE]",
        often=True,
        heading="What is asked",
    )
    suite: str | Path | SuiteFile = option(
        "Suite: unimed, pathgen, dense, or a YAML file. In Python also one that was loaded.",
        default="unimed",
        form="NAME|FILE",
        kind=str,
        often=True,
        place=True,
    )
    out: str | Path | None = option(
        "Folder to write; one that holds something else is refused. It gets evaluate.json and predictions.parquet (of "
        "masks dense.parquet and report.html), and sets that are done there are not computed again. Nothing is written "
        "without it.",
        default=None,
        often=True,
        place=True,
    )
    dataset: str | Sequence[str] = option(
        "Set to measure, by its id. Default: all that are there.", default=(), form="ID", often=True
    )
    prompt_sensitivity: bool = option(
        "Measure each wording of the prompts as well, and whether 'no' counts.", default=False, often=True
    )
    compare: str | Path | Model | None = option(
        "Another pack to measure on the same images, each with its own preprocessing and size. The difference of each "
        "set's figure and of their mean is paired over resamples of patients.",
        default=None,
        form="PACK",
        kind=str,
        often=True,
        place=True,
    )
    compare_images: str | Path | Embeddings | None = option(
        "Folder of embeddings that `medclip embed` wrote of the data with the other pack. Default: those of --images "
        "where both packs have one image tower, as adapted packs often do; else it reads the images themselves.",
        default=None,
        form="DIR",
        place=True,
    )

    rules = (
        needs(
            "compare_images",
            "compare",
            "there are embeddings of a pack to compare with, and no such pack is named.",
            hint="Name it with --compare.",
        ),
        needs(
            "prompt",
            "label",
            "words are measured against labels, and no column of them is named.",
            hint="Name it with --label COLUMN, or COLUMN=VALUE. Without labels, use medclip score --prompt.",
        ),
        needs(
            ("label", "against", "patient", "modality"),
            "prompt",
            "{names} is of --prompt; what a suite measures stands in its file.",
            hint="Name what the label means in words with --prompt, or leave it out. Masks that a pack marks are "
            "measured by medclip score and then medclip audit.",
        ),
        excludes(
            ("suite", "dataset"),
            "prompt",
            "{names} is of a suite of labelled sets, and --prompt of one table.",
            hint="Measure one at a time.",
        ),
    )


@verb(EvaluateOptions)
def evaluate(options: EvaluateOptions) -> SuiteResult:
    """Measure a model zero-shot on a suite of labelled sets, or in one's own words on a table.

    Of a suite what is there is measured. With `prompt` each prompt is measured on the rows of one table, by a column of
    labels.

    Class vector = normalise(mean of normalised prompt vectors), score = cosine, prediction = the highest score; for two
    classes the area is that of the second score minus the first. Images are read through the adapters that feed
    training and scoring; one that cannot be read is counted with its reason.

    Sets with masks (suite "dense") need no words: a head over the frozen tower's feature maps learns to segment from
    shares of the labels, beside the same architecture with weights of ImageNet and with random ones, and beside the
    mean mask. With `out` report.html shows Dice and examples.

    Returns:
        Figures by set, means by group, which sets are missing, and which do not fit the suite.

    Raises:
        MedclipError: NOTHING_TO_DO when no set of the suite is there, naming what was looked for; MISSING_FILE for the
            data folder or the suite; TABLE_INVALID when no set can be measured and one does not fit the suite (a label
            that it does not know), or for a table whose column does not say whether a prompt is true; WRONG_USE for a
            set that the suite does not have; NOT_SUPPORTED_YET where masks are to be learned on a tower without a grid
            of places; OUTPUT_IN_USE; those of `medclip.models.load`.

    Reference: Khattak et al., UniMed-CLIP, 2024, for the suite "unimed"; its prompts here are our own.
    """
    from medclip.api.run_arguments import folder_of, refuse_slide_store
    from medclip.evaluation.zero_shot.own_words import words_suite
    from medclip.evaluation.zero_shot.suite_run import AskedPack, Measuring, evaluate_suite
    from medclip.text.vocabulary.own_words import read_prompts

    for folder in (options.images, options.compare_images):
        folder_of(folder)
    refuse_slide_store(options.data)
    data, suite = options.data, options.suite
    if prompts := read_prompts(options.prompt, options.against):
        columns = (options.label,) if isinstance(options.label, str) else options.label
        data, suite = words_suite(data, prompts, columns, modality=options.modality, patient=options.patient)
    result = evaluate_suite(
        AskedPack(options.model, options.images),
        suite,
        data,
        Measuring(options.device, options.batch_size, options.num_resamples, options.prompt_sensitivity),
        other=None if options.compare is None else AskedPack(options.compare, options.compare_images),
        out=None if options.out is None else Path(options.out),
        sets=(options.dataset,) if isinstance(options.dataset, str) else options.dataset,
        key_file=key_file_of(options),
        settings=settings_of(options),
        progress=options.progress,
    )
    if result.dense and result.folder is not None:
        from medclip.reports.dense import write_dense_report

        write_dense_report(result, result.folder)
    return result
