"""What the images themselves say: embeddings, re-identification, drift, and what training and audit share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.groups.measure import Measured
from medclip.auditing.input.options import ReadOptions
from medclip.auditing.input.read import patient_column
from medclip.auditing.leakage import checks as leakage
from medclip.auditing.leakage import training_data
from medclip.auditing.leakage.burned_in_text import flags_of_files, flags_of_headers
from medclip.auditing.leakage.file_hashes import HashedFiles, collected, hash_files
from medclip.auditing.options import ImageChecks, MeasureOptions
from medclip.embeddings.embeddings_reader import EmbeddingsReader, needs_images, open_for
from medclip.embeddings.open_embeddings import is_embeddings
from medclip.errors import MedclipError, Reason
from medclip.files.pseudonyms import load_key
from medclip.files.tables.table import PATIENTS, Table, is_blank
from medclip.imaging.perceptual_hash import from_bytes, look_of_views
from medclip.models.packs.pack import find_pack
from medclip.progress import Progress
from medclip.sample import Modality
from medclip.settings import Settings
from medclip.statistics.cohort import CONFLICT, MISSING, Attribute, Cohort

if TYPE_CHECKING:
    from medclip.embeddings.open_embeddings import Embeddings
    from medclip.models.model import Model

Row = Mapping[str, Any]
_SPLIT = "split"
_AGE_ATTRIBUTE = "age"
_SAME = ("sex", "site")
"""Attributes that the matched gallery of re-identification holds fixed."""


@dataclass(frozen=True)
class Evidence:
    """Rows of three tables, and the images that leak."""

    embeddings: tuple[Row, ...] = ()
    projection: tuple[Row, ...] = ()
    leakage: tuple[Row, ...] = ()
    leaked_rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()


def gather(
    one: Measured,
    choosing: Cohort | None,
    splits: tuple[Sequence[str], Sequence[str]] | None,
    options: MeasureOptions,
    model: Model | None,
    settings: Settings,
    progress: Progress,
) -> Evidence:
    """Look at whatever of images, vectors and training lists there is; say what was not looked at.

    Args:
        one: The audited model, measured.
        choosing: Cohort that the thresholds were chosen on; None where they were not chosen from data.
        splits: Patient and split of each row of the whole label table (`table_splits`).
        options: Options, of which `image_checks` says what there is.
        model: Pack of the audited model, loaded; None where there is none.
        settings: Limits and number of reading processes.
        progress: Progress bar of the images.

    Raises:
        MedclipError: What reading packs, shards, tables and embeddings raises; a bad image raises nothing.
    """
    wanted, cohort = options.image_checks, one.cohort
    files, vectors_ND, notes = _read(cohort, wanted, open_stored(options, settings), model, settings, progress)
    training = _training(wanted, model, settings, progress)
    progress.stage("Looking for overlap with training", 1)
    key = load_key(settings, path=wanted.key_file) if training else None
    leaks = leakage.check(
        cohort,
        files,
        training=training,
        key=key,
        vectors_ND=vectors_ND,
        choosing=choosing,
        table_splits=splits,
        progress=progress,
    )
    if vectors_ND is None:
        return Evidence(leakage=leaks.rows, leaked_rows=leaks.named, notes=notes)
    rows, points, sentences = _embeddings(one, vectors_ND, files, options, progress)
    return Evidence(tuple(rows), tuple(points), leaks.rows, leaks.named, (*notes, *sentences))


def table_splits(table: Table, reading: ReadOptions) -> tuple[Sequence[str], Sequence[str]] | None:
    """Read patient and split of every row of a label table, audited or not; None where it has no such columns."""
    (patient, part), split = patient_column(table, reading), table.find(_SPLIT)
    if patient is None or split is None:
        return None
    cells = table.coded(patient)
    cells = cells if part is None else cells.mapped(part)
    return cells.texts_N().tolist(), table.coded(split).texts_N().tolist()


def open_stored(options: MeasureOptions, settings: Settings) -> Embeddings | None:
    """Open the folder of images where it is one of embeddings, after what needs images themselves is refused.

    Returns:
        None for a folder of images, and where there is none.

    Raises:
        MedclipError: WRONG_USE; what `open_for` raises.
    """
    wanted = options.image_checks
    if wanted.images is None or wanted.model is None or not is_embeddings(wanted.images):
        return None
    if options.stress is not None:
        raise needs_images("the stress test shows the model other images")
    return open_for(wanted.images, find_pack(wanted.model), settings, wanted.key_file)


def load_audited(wanted: ImageChecks) -> Model | None:
    """Load the audited model's pack; None where there is none."""
    from medclip.models.packs.pack import load_model

    return None if wanted.model is None else load_model(wanted.model)


def _read(
    cohort: Cohort,
    wanted: ImageChecks,
    stored: Embeddings | None,
    model: Model | None,
    settings: Settings,
    progress: Progress,
) -> tuple[HashedFiles | None, NDArray[np.float32] | None, tuple[str, ...]]:
    """Return hashes and vectors of the rows, as far as they can be had."""
    from medclip.auditing.embeddings.load import embed_images, read_embeddings

    known, headers = cohort.columns.get("sha256"), cohort.columns.get("headers")
    files = None
    if known is not None:
        flags = () if headers is None else flags_of_headers(headers.tolist())
        files = HashedFiles(tuple("" if is_blank(str(x)) else str(x) for x in known), burned_in=flags)
    if wanted.embeddings is not None:
        read = read_embeddings(wanted.embeddings, cohort.keys)
        return files, read.vectors_ND, read.notes
    if wanted.images is None:
        return files, None, ()
    if not cohort.files:
        raise MedclipError(
            Reason.WRONG_USE,
            "the label table names no files, so that no images can be read.",
            hint="Give it a column `file`, or leave out the folder of images.",
        )
    paths = [wanted.images / name if name else None for name in cohort.files]
    progress.stage("Reading images", len(set(paths)))
    modality = modality_of(wanted, model)
    if model is None:
        return hash_files(paths, modality, settings, step=progress.step), None, ()
    also = look_of_views if model.preprocess.shows_all else None  # the part that is shown is not known again
    embedded = embed_images(model, paths, modality, settings, also=also, step=progress.step, stored=stored)
    if stored is not None:
        reader = EmbeddingsReader(stored, stored.folder)
        looks = [from_bytes(look) if look else None for look in reader.facts(paths, "look")]
        flags = flags_of_headers(reader.facts(paths, "headers"))
        return collected(embedded.hashes, looks, flags), embedded.vectors_ND, embedded.notes
    if also is None:
        return hash_files(paths, modality, model.preprocess.reading(settings)), embedded.vectors_ND, embedded.notes
    return (
        collected(embedded.hashes, embedded.also, flags_of_files(paths, settings)),
        embedded.vectors_ND,
        embedded.notes,
    )


def modality_of(wanted: ImageChecks, model: Model | None) -> Modality:
    """Return the modality of the images: the one that was named, else the pack's only one.

    Raises:
        MedclipError: WRONG_USE where neither says which.
    """
    from medclip.files.grouping.studies import parse_modality

    if wanted.modality is not None:
        return parse_modality(wanted.modality)
    known = model.card.modalities if model is not None else ()
    if len(known) != 1:
        raise MedclipError(
            Reason.WRONG_USE,
            "which modality the images are of is not known.",
            hint="Name it, such as --modality xray.",
        )
    return parse_modality(known[0])


def _training(
    wanted: ImageChecks, model: Model | None, settings: Settings, progress: Progress
) -> list[training_data.TrainingData]:
    sets = list(training_data.of_pack(model.path)) if model is not None else []
    for source in wanted.training:
        if isinstance(source, str | Path):
            progress.stage("Reading training shards", 1)
            sets += training_data.of_shards(source)
        else:
            modality = modality_of(wanted, model) if wanted.images is not None else None
            column = source.find(*PATIENTS) or PATIENTS[0]
            sets.append(training_data.of_table(source, patient_from=column, modality=modality, settings=settings))
    return sets


def _embeddings(
    one: Measured,
    vectors_ND: NDArray[np.float32],
    files: HashedFiles | None,
    options: MeasureOptions,
    progress: Progress,
) -> tuple[Sequence[Row], Sequence[Row], Sequence[str]]:
    from medclip.auditing.embeddings.drift import drift_between, drift_months
    from medclip.auditing.embeddings.probe import probe
    from medclip.auditing.embeddings.projection import centroids, projection
    from medclip.auditing.reidentification.patient_retrieval import reident
    from medclip.auditing.reidentification.trained_attacker import attack_head

    cohort, wanted = one.cohort, options.image_checks
    grouped: dict[str, Any] = {"seed": options.seed, "fewest": options.small_cells.min_patients}
    single = [a for a in cohort.attributes if " × " not in a.name]
    devices = [_device(cohort, d) for d in options.shortcuts.devices if all(a.name != d for a in single)]
    progress.stage("Probing embeddings", len(single) + len(devices) + 2)
    rows: list[Row] = []
    for attribute in (*single, *devices):
        rows += probe(vectors_ND, cohort.patients_N, attribute, **grouped)
        rows += centroids(vectors_ND, cohort.patients_N, attribute, **grouped)
        progress.step()
    points, sentence = projection(vectors_ND, cohort.patients_N, single, **grouped)
    images = _images(cohort, wanted, single, files)
    rows += reident(vectors_ND, images, seed=options.seed)
    if wanted.attacker:
        rows += attack_head(vectors_ND, images, seed=options.seed)
    progress.step()
    for site in wanted.sites:
        attribute = next((a for a in single if a.name == site), None)
        if attribute is None:
            raise MedclipError(
                Reason.WRONG_USE, f"{site!r} is not one of the groups of this audit.", hint=f"Add --by {site}."
            )
        rows += drift_between(vectors_ND, cohort.patients_N, attribute, **grouped)
    if wanted.date is not None:
        dates = cohort.columns[wanted.date].tolist()
        rows += drift_months(vectors_ND, cohort.patients_N, dates, **grouped)
    progress.step()
    return rows, points, sentence


def _device(cohort: Cohort, column: str) -> Attribute:
    """Make a device column into groups that a probe can predict."""
    from medclip.auditing.shortcuts.device import device_of

    device_N = device_of(cohort, column)
    codes_N = np.where(np.isnan(device_N), 2, np.where(device_N == 1, 1, 0)).astype(np.int16)
    return Attribute(column, ("without", "with", MISSING), codes_N)


def _images(cohort: Cohort, wanted: ImageChecks, attributes: list[Attribute], files: HashedFiles | None) -> Any:
    from medclip.auditing.reidentification.gallery import Images

    same = {}
    for attribute in attributes:
        if attribute.name in _SAME:
            unknown = [g for g, group in enumerate(attribute.groups) if group in (MISSING, CONFLICT)]
            same[attribute.name] = np.where(np.isin(attribute.codes_N, unknown), -1, attribute.codes_N)
    return Images(
        cohort.patients_N,
        studies_N=None if wanted.study is None else cohort.columns[wanted.study],
        hashes_N=() if files is None else files.sha256,
        same=same,
        age_years_N=cohort.columns.get(_AGE_ATTRIBUTE),
    )
