"""The verb `adapt`: a table of labelled studies and a pack go in, an adapted pack comes out, measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.api.groups.asking import (
    Chance,
    LabelledTable,
    LabelOrder,
    NamedPack,
    Overridden,
    TableTask,
    TestShare,
    WithModel,
)
from medclip.api.groups.reading import Identity, Limits, NamedModality, PatientColumn, TableImages
from medclip.api.groups.running import Device, Machine, Overwriting, Recipe, Told, settings_of
from medclip.errors import MedclipError, Reason
from medclip.options import option, options
from medclip.verbs import verb

if TYPE_CHECKING:
    from medclip.adaptation.data.table import TableSource
    from medclip.adaptation.maps.learn import MapAdaptation, MapRun
    from medclip.adaptation.run import AdaptRun


@options
class AdaptOptions(
    Told,
    Limits,
    Recipe,
    Machine,
    Device,
    NamedPack,
    Overwriting,
    Overridden,
    Chance,
    Identity,
    TestShare,
    TableTask,
    LabelOrder,
    NamedModality,
    TableImages,
    PatientColumn,
    WithModel,
    LabelledTable,
):
    """What `adapt` is asked."""

    out: str | Path | None = option(
        "Folder of the new pack; one that holds something else is refused. It may hold the pack of an equal call. In "
        "Python nothing is written where None.",
        default=None,
        needed=True,
        place=True,
    )
    method: str | None = option(
        "Way of adapting: zero-shot, linear-probe, lp++, ridge, knn, lda, proportional-odds, coral, regression, "
        "ranking, tip, tip-f, clip-adapter, coop, biomedcoop, cocoop, svd, lora, norm or full; of maps "
        "map-probe, map-tuned. Default: svd; without text linear-probe.",
        default=None,
        form="NAME",
        often=True,
    )
    map: str | None = option(
        "Learn a map of the image, and no answer about it: mask, where --label names a column of mask files. What is "
        "not black in a mask is the structure, which is called as the column is. --method is map-probe by default.",
        default=None,
        choices=("mask",),
        heading="How it learns",
    )
    shots: int = option(
        "Number of patients of each class to learn from, one file each.",
        default=16,
        form="K",
        least=1,
        often=True,
    )
    init_seed: int = option(
        "Seed of initial values, batches and augmentation. The draw of shots has --seed; test patients depend on "
        "neither.",
        default=0,
        least=0,
        heading="How it learns",
    )
    checkpoint: str | Path | None = option(
        "Folder for what was learned alone, bound to the base.",
        default=None,
        form="DIR",
        place=True,
        heading="Output",
    )
    changes: bool = option(
        "With svd: list the parts of the image tower that changed most, by how much each moves the test images, and "
        "the sentences along which it moves them.",
        default=False,
        heading="Output",
    )
    num_threads: int | None = option(
        "Number of threads while it learns. Another number sums in another order. Default: torch's.",
        default=None,
        least=1,
        heading="This machine",
    )


@verb(AdaptOptions)
def adapt(options: AdaptOptions) -> AdaptRun | MapRun:
    """Adapt a model to a question of your own from a few labelled studies; `adapt compare` tells which way helps.

    Patients are divided first; shots are drawn from one side, and the other side is only scored. A file that cannot be
    read is counted and never stops it; the next patient of its class takes the place of such a shot. The new pack is
    used with `medclip score --model`.

    With `map` the labels are masks: a head over the tower's feature maps learns where a structure is, from shots of one
    image a patient, and with `map-tuned` the tower beneath it, too. `medclip score` with the new pack writes maps.

    Returns:
        The run: `.adapted`, `.test`, `.notes`, and `.measured`, the figures on the test patients beside zero-shot; with
        `map` the figures stand beside those of the masks' mean.

    Raises:
        MedclipError: WRONG_USE, OUTPUT_IN_USE, TABLE_INVALID, NO_TASK, NOTHING_TO_DO; PATIENT_OVERLAP where a patient
            or the bytes of a file are on two sides; NON_FINITE; those of `medclip.models.load` and of the method.
    """
    from medclip.adaptation.data.shots import divide, draw_shots
    from medclip.adaptation.methods import METHODS, choose_method
    from medclip.adaptation.pack.adapted_model import Draw
    from medclip.adaptation.pack.write_pack import check_places, write_pack
    from medclip.adaptation.run import Adaptation
    from medclip.embeddings.embeddings_reader import needs_images, open_for
    from medclip.embeddings.open_embeddings import is_embeddings
    from medclip.evaluation.adapted_figures import measure
    from medclip.files.key_value import read_overrides
    from medclip.files.pseudonyms import load_key
    from medclip.models.devices import check_device
    from medclip.models.packs.pack import find_pack, load_model, read_preprocess
    from medclip.models.packs.words import understands_words
    from medclip.progress import Silent

    source, settings, key_file = source_of(options, options.order), settings_of(options), key_file_of(options)
    source = replace(source, masks=options.map is not None)
    changes = {key.replace("-", "_"): value for key, value in read_overrides(options.overrides).items()}
    draw = Draw(options.shots, options.seed, options.init_seed)
    model = options.model
    base = find_pack(model) if isinstance(model, str | Path) else Path(model.path)
    has_text = understands_words(base) if isinstance(model, str | Path) else model.has_text
    method = choose_method(options.method, has_text=has_text, of_maps=options.map is not None)
    if options.changes and method.name != "svd":
        raise MedclipError(
            Reason.WRONG_USE,
            f"--changes is about the singular values of svd; {method.name} has none.",
            hint="Leave it out.",
        )
    progress = options.progress or Silent()
    out, checkpoint = (None if place is None else Path(place) for place in (options.out, options.checkpoint))
    check_places(out, checkpoint, base, method=method.name, draw=draw, options=changes, replace=options.overwrite)
    check_device(options.device)
    embeddings = None
    if source.folder is not None and is_embeddings(source.folder):
        embeddings = open_for(source.folder, base, settings, key_file)
    if embeddings is not None and method.needs_pixels:
        frozen = [m.name for m in METHODS.values() if not m.needs_pixels and (has_text or not m.needs_words)]
        what = "learns in the towers" if method.trains_towers else "learns of the tokens of images"
        raise needs_images(f"{method.title} {what}", f", or take one of: {', '.join(frozen)}")
    table = source.read(load_key(settings, path=key_file), read_preprocess(base).modality)
    method.check(changes)  # imports the method, and torch with it: what needs neither was refused above
    division = divide(table.units, test_share=options.test_share)
    draw_shots(table.units, division, table.text, draw.shots, draw.seed)  # refused before a model is loaded
    loaded = load_model(model, device=options.device) if isinstance(model, str | Path) else model
    if options.map is not None:
        from medclip.adaptation.maps.learn import MapAdaptation

        return _adapt_map(options, MapAdaptation(loaded, table, division, method, draw, settings, progress), changes)
    method.rehearse(loaded, table.text, changes)
    adaptation = Adaptation(loaded, table, division, method, draw, settings, progress, embeddings, source.originals)
    run = adaptation.run(changes, options.num_threads)
    run = replace(run, measured=measure(run))
    if options.changes:
        from medclip.adaptation.towers.svd_report import changes_on

        tested = [run.units[i] for i in run.division.test]
        run = replace(run, changes=changes_on(loaded, run.adapted.fitted.delta, tested, settings, progress))
    if checkpoint is not None:
        run.adapted.save(checkpoint, replace=options.overwrite)
    if out is not None:
        metrics = run.measured.metrics
        folder = write_pack(run.adapted, out, metrics=metrics, name=options.name, replace=options.overwrite)
        run = replace(run, folder=folder)
    return run


def _adapt_map(options: AdaptOptions, adaptation: MapAdaptation, changes: dict[str, Any]) -> MapRun:
    """Learn a map, measure it and write its pack."""
    from medclip.adaptation.pack.write_pack import write_pack
    from medclip.evaluation.dense.adapted_map import measure_map

    run = adaptation.run(changes, options.num_threads)
    run = replace(run, measured=measure_map(run))
    if options.checkpoint is not None:
        run.adapted.save(options.checkpoint, replace=options.overwrite)
    if options.out is None:
        return run
    metrics = {} if run.measured is None else run.measured.metrics
    folder = write_pack(run.adapted, options.out, metrics=metrics, name=options.name, replace=options.overwrite)
    return replace(run, folder=folder)


def source_of(options: Any, order: str | Sequence[str] = ()) -> TableSource:
    """Return the table of labelled files that a call names, and how it is read.

    Raises:
        MedclipError: WRONG_USE for a folder of vectors of slides.
    """
    from medclip.adaptation.data.table import TableSource
    from medclip.api.run_arguments import folder_of

    folder = folder_of(options.images)
    columns = (options.label,) if isinstance(options.label, str) else tuple(options.label)
    return TableSource(
        options.labels,
        columns,
        options.task,
        options.modality,
        None if folder is None else Path(folder),
        options.patient,
        _steps_of(order),
    )


def _steps_of(order: str | Sequence[str]) -> tuple[str, ...]:
    """Read an order: one text with commas, or its values in Python."""
    texts = (order,) if isinstance(order, str) else tuple(map(str, order))
    return tuple(value.strip() for value in texts[0].split(",")) if len(texts) == 1 else texts


def key_file_of(options: Any) -> Path | None:
    """Return the file of the identity key that a call names."""
    return None if options.key_file is None else Path(options.key_file)
