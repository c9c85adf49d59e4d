"""Measure a model pack zero-shot on a suite of labelled sets, as far as their data is there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from medclip.embeddings.embeddings_reader import EmbeddingsReader, open_for, open_reader
from medclip.embeddings.open_embeddings import Embeddings, is_embeddings
from medclip.errors import MedclipError, Reason, did_you_mean, refuse_missing
from medclip.evaluation.dense.masked_set import MaskedSet, find_masks
from medclip.evaluation.word_control import compare_words, other_wordings
from medclip.evaluation.zero_shot.compared_packs import compare_packs
from medclip.evaluation.zero_shot.figures import (
    OTHER_WORDS,
    RETRIEVAL,
    TextFigures,
    beside_card,
    measure_tasks,
    retrieval_name,
    set_figures,
    texts_measured,
)
from medclip.evaluation.zero_shot.labelled_set import (
    LabelledSet,
    MeasuredFiles,
    TextSet,
    find_set,
    find_texts,
    move_images,
    places,
)
from medclip.evaluation.zero_shot.sensitivity import measure_negation, measure_sensitivity
from medclip.evaluation.zero_shot.suite import MasksFile, SetFile, SuiteFile, TextsFile, load_suite, with_vocabulary
from medclip.evaluation.zero_shot.suite_result import (
    COMPARED,
    EVALUATION,
    RUN_NAME,
    MissingSet,
    SetResult,
    SuiteResult,
    SuiteStore,
    UnusableSet,
    suite_result,
)
from medclip.files.output import check_run, digest_of
from medclip.files.pseudonyms import load_key
from medclip.files.temporary_folder import TemporaryFolder
from medclip.models.devices import check_batch_size, check_device
from medclip.models.encoding.unit_reader import ReadUnit, UnitReader
from medclip.models.packs.card import measured_hashes, training_hashes
from medclip.models.packs.manifest import pack_digest
from medclip.models.prototypes.class_vectors import ClassVectors, class_logits, encode_prompts, mean_vector
from medclip.progress import Progress, Silent
from medclip.sample import Modality, spoken
from medclip.settings import Settings
from medclip.statistics.estimate import NUM_RESAMPLES, Figure

if TYPE_CHECKING:
    import pyarrow as pa

    from medclip.evaluation.dense.run import Probing
    from medclip.models.model import Model


FORMAT = 5
"""Raise when the same images give other figures or other columns: results of before are then computed again."""


AnyPart = SetFile | TextsFile | MasksFile
AnySet = LabelledSet | TextSet | MaskedSet


class _Image(NamedTuple):
    path: Path
    modality: Modality | str


@dataclass(frozen=True)
class _Run:
    """What every set of an evaluation needs."""

    model: Any
    seen: frozenset[str] | None
    reader: UnitReader | EmbeddingsReader
    num_resamples: int
    progress: Progress
    sensitivity: bool
    shared: frozenset[_Image]
    """Images of several sets: they are read once."""
    made_of: tuple[Any, ...]
    """What figures hang on beside the data. Another device or batch size may change the last bits."""
    base: Path
    """Folder that images lie below."""
    known: dict[_Image, ReadUnit] = field(default_factory=dict)

    def fingerprint(self, one: AnySet) -> str:
        """Hash what the figures of a set are made of."""
        return digest_of([FORMAT, one.digest(self.base), *self.made_of])

    def read(self, images: Sequence[_Image]) -> list[ReadUnit]:
        """Read and encode images, but those of before."""
        new = [image for image in images if image not in self.known]
        self.progress.step(len(images) - len(new))
        units = self.reader.read(new, self.progress.step, keep_pixels=False)
        of_these = dict(zip(new, units, strict=True))
        self.known.update({image: unit for image, unit in of_these.items() if image in self.shared})
        return [self.known.get(image) or of_these[image] for image in images]


@dataclass(frozen=True, eq=False)
class AskedPack:
    """A pack, and what it reads."""

    model: str | Path | Model
    images: str | Path | Embeddings | None = None
    """Embeddings by this pack, or their folder; or where images lie as the data names them. None: the data's own."""


@dataclass(frozen=True)
class Measuring:
    """How a pack is measured."""

    device: str = "cpu"
    batch_size: int | None = None
    """Images in one forward pass; the model's own where None."""
    num_resamples: int = NUM_RESAMPLES
    prompt_sensitivity: bool = False
    """Each wording of the prompts as well, and whether the text tower hears "no"."""


def evaluate_suite(
    asked_pack: AskedPack,
    suite: str | Path | SuiteFile,
    data: str | Path,
    measuring: Measuring,
    *,
    other: AskedPack | None = None,
    out: Path | None = None,
    sets: Sequence[str] = (),
    key_file: Path | None = None,
    settings: Settings,
    progress: Progress | None = None,
) -> SuiteResult:
    """Measure a model pack zero-shot, as `medclip.evaluate` says."""
    from medclip.models.packs.pack import find_pack, load_model, pack_card

    model, images = asked_pack.model, asked_pack.images
    device, num_resamples = measuring.device, measuring.num_resamples
    check_batch_size(measuring.batch_size)
    path = find_pack(model)
    card = pack_card(path)
    chosen = with_vocabulary(suite if isinstance(suite, SuiteFile) else load_suite(suite), card)
    root = Path(data)
    wanted_sets = _asked(chosen, sets)
    identity = _identity(model, chosen)
    other_identity = None if other is None else _identity(other.model, chosen)
    if out is not None:
        check_run(out, EVALUATION, identity, RUN_NAME)
    check_device(device)
    progress = progress or Silent()
    embedded, base = None, root
    if isinstance(images, Embeddings) or (images is not None and is_embeddings(images)):
        embedded = open_for(images, find_pack(model), settings, key_file)
    elif images is not None:
        refuse_missing(images, "folder of images")
        base = Path(images)
    of_other = _vectors_of_other(other, embedded, settings, key_file, progress)
    records = TemporaryFolder("records")  # goes when this function ends
    sets_here, missing, unusable = _look(root, wanted_sets, load_key(settings, path=key_file), records.path)
    sets_here, nothing = _held_out([_moved(one, root, base) for one in sets_here], measured_hashes(path, card))
    missing += nothing
    labelled_sets = [one for one in sets_here if isinstance(one, LabelledSet)]
    masked_sets = [one for one in sets_here if isinstance(one, MaskedSet)]
    not_asked = [part.id for part in (*chosen.sets, *chosen.texts, *chosen.masks) if part not in wanted_sets]

    def measured(
        pack: str | Path | Model,
        of_pack: Mapping[str, str],
        folder: Path | None,
        embedded: Embeddings | None,
        sensitivity: bool,
    ) -> tuple[SuiteResult, SuiteStore | None, dict[str, pa.Table]]:
        """Measure one of the packs over all sets."""
        loaded = load_model(pack, device=device)
        store = None if folder is None else SuiteStore(folder, of_pack)
        loaded.batch_size = batch = measuring.batch_size or loaded.batch_size
        results, tables = [], {}
        with open_reader(loaded, settings, embedded, root=root, originals=root) as reader:
            seen = training_hashes(loaded.path, loaded.card)
            made_of = [num_resamples, batch, device, settings.policy.changes()]
            made_of += [embedded.dtype] if embedded is not None and embedded.dtype != "float32" else []
            made_of += ["wordings"] if sensitivity else []
            of_several = _in_several(sets_here)
            run = _Run(loaded, seen, reader, num_resamples, progress, sensitivity, of_several, tuple(made_of), base)
            for labelled in labelled_sets:
                result, tables[labelled.part.id] = _figures_of(run, labelled, store)
                results.append(result)
            of_texts = [_texts_of(run, one, store) for one in sets_here if isinstance(one, TextSet)]
        digest = of_pack["model_digest"]
        result = suite_result(chosen, results, missing, unusable, not_asked, model=loaded, model_digest=digest)
        parts = [labelled.part for labelled in labelled_sets]
        of_tasks = measure_tasks(parts, tables, loaded.card, num_resamples=num_resamples)
        of_card = beside_card(of_tasks, of_texts, loaded.card)
        result = replace(result, tasks=of_tasks, texts=tuple(of_texts), beside_card=of_card)
        if sensitivity and labelled_sets:
            modalities = dict.fromkeys(part.modality for part in parts if isinstance(part.modality, Modality))
            result = replace(result, negation=measure_negation(loaded, tuple(modalities)))
        return result, store, tables

    from medclip.evaluation.dense.run import Probing  # torch: what needs none was refused above

    probing = Probing(num_resamples, device, settings, progress, base)
    result, store, tables = measured(model, identity, out, embedded, measuring.prompt_sensitivity)
    if other is not None and other_identity is not None and labelled_sets:
        beside = None if out is None else out / COMPARED / other_identity["model_digest"]
        result_of_other, _, other_tables = measured(other.model, other_identity, beside, of_other, False)
        parts = [labelled.part for labelled in labelled_sets]
        by_group = chosen.average == "groups"
        compared = compare_packs(
            parts, tables, other_tables, result_of_other, num_resamples=num_resamples, by_group=by_group
        )
        result = replace(result, compared=compared)
    if masked_sets:
        result = _with_masks(result, asked_pack, other, other_identity, masked_sets, store, measuring, probing)
    if store is None:
        return result
    store.finish(result.to_json(), [s.id for s in result.sets], [one.id for one in result.dense])
    return replace(result, folder=store.folder)


def _vectors_of_other(
    other: AskedPack | None, embedded: Embeddings | None, settings: Settings, key_file: Path | None, progress: Progress
) -> Embeddings | None:
    """Return the embeddings that the other pack is measured on; None where it reads images, or there is no other.

    Args:
        other: The other pack, and the embeddings that were named for it.
        embedded: Embeddings of the first pack, which are the other's own, too, where both have one image tower.
        settings: Settings, as in `open_for`.
        key_file: File of the identity key, as in `open_for`.
        progress: Progress that notes where images are read beside embeddings.

    Raises:
        MedclipError: WRONG_USE for embeddings of another pack.
    """
    from medclip.models.packs.pack import find_pack

    if other is None:
        return None
    if other.images is not None:
        return open_for(other.images, find_pack(other.model), settings, key_file)
    if embedded is None:
        return None
    try:
        return open_for(embedded, find_pack(other.model), settings, key_file)
    except MedclipError as e:
        if e.reason is not Reason.WRONG_USE:
            raise
        progress.note(
            "The pack to compare with has another image tower than these embeddings are of: it reads the images. Name "
            "its own embeddings with --compare-images."
        )
        return None


def _identity(model: str | Path | Model, suite: SuiteFile) -> dict[str, str]:
    """Return what a folder of results is about; a pack without words is refused."""
    from medclip.models.packs.pack import find_pack, pack_card
    from medclip.models.packs.words import no_words, understands_words

    pack = find_pack(model)
    name = pack_card(pack).name
    if (suite.sets or suite.texts) and not understands_words(pack):
        raise no_words(name, ", and what is measured here are answers to prompts")
    facts = {"suite": suite.name, "suite_digest": suite.digest()}
    return {"model": name, "model_digest": pack_digest(pack)[:16], **facts}


def _moved(one: AnySet, data: Path, images: Path) -> AnySet:
    return one.moved(data, images) if isinstance(one, MaskedSet) else move_images(one, data, images)


def _with_masks(
    result: SuiteResult,
    asked_pack: AskedPack,
    other: AskedPack | None,
    other_identity: Mapping[str, str] | None,
    masked_sets: Sequence[MaskedSet],
    store: SuiteStore | None,
    measuring: Measuring,
    probing: Probing,
) -> SuiteResult:
    """Return a result with what was measured of images with masks."""
    from medclip.evaluation.dense.run import probe_sets
    from medclip.models.packs.pack import load_model

    def loaded(pack: AskedPack) -> Model:
        model = load_model(pack.model, device=measuring.device)
        model.batch_size = measuring.batch_size or model.batch_size
        return model

    beside = None
    if other is not None and other_identity is not None:
        beside = loaded(other), other_identity["model_digest"]
    dense, failed, notes = probe_sets(loaded(asked_pack), beside, masked_sets, probing, store)
    unusable = [UnusableSet(one.part.id, one.part.group, str(e.reason), str(e)) for one, e in failed]
    notes += [f"Unusable: {one.id}  {one.message}" for one in unusable]
    return replace(
        result,
        dense=tuple(dense),
        unusable=(*result.unusable, *unusable),
        notes=(*result.notes, *notes),
    )


def _asked(suite: SuiteFile, sets: Sequence[str]) -> tuple[AnyPart, ...]:
    parts = (*suite.sets, *suite.texts, *suite.masks)
    ids = [part.id for part in parts]
    strange = [name for name in sets if name not in ids]
    if strange:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the suite {suite.name} has no set {strange[0]!r}.",
            hint=did_you_mean(strange[0], ids, "It has"),
        )
    return tuple(part for part in parts if not sets or part.id in sets)


def _group_of(part: AnyPart) -> str:
    return RETRIEVAL if isinstance(part, TextsFile) else part.group


def _images_of(one: AnySet) -> list[_Image]:
    """Return the images of a set, each with whose adapter reads it."""
    if isinstance(one, LabelledSet):
        return [_Image(row.path, one.part.modality) for row in one.rows]
    if isinstance(one, MaskedSet):  # read with their masks
        return []
    return [_Image(row.path, row.modality) for row in one.rows]


def _in_several(sets_here: Sequence[AnySet]) -> frozenset[_Image]:
    num_sets = Counter(image for one in sets_here for image in _images_of(one))
    return frozenset(image for image, number in num_sets.items() if number > 1)


def _look(
    root: Path, wanted_sets: Sequence[AnyPart], key: bytes, unpacked: Path
) -> tuple[list[AnySet], list[MissingSet], list[UnusableSet]]:
    if not os.path.isdir(root):  # unlike Path.is_dir, this takes any name
        if not os.path.lexists(root):
            raise MedclipError(Reason.MISSING_FILE, "there is no such data folder.", where=root, hint="Check the path.")
        raise MedclipError(
            Reason.WRONG_USE,
            "this is a file; the data of a suite is a folder with one folder for each set.",
            where=root,
            hint="Name the folder that the sets lie in.",
        )
    labelled_sets, missing, unusable = [], [], []
    first: MedclipError | None = None
    for part in wanted_sets:
        try:
            if isinstance(part, SetFile):
                labelled = find_set(root, part, key, unpacked)
            elif isinstance(part, MasksFile):
                labelled = find_masks(root, part, key, unpacked)
            else:
                labelled = find_texts(root, part, key, unpacked)
        except MedclipError as e:
            first = first or e
            message = str(e).replace(f"{root}{os.sep}", "")
            unusable.append(UnusableSet(part.id, _group_of(part), str(e.reason), message))
            continue
        if labelled is None or not labelled.rows:
            missing.append(MissingSet(part.id, _group_of(part), places(part)))
        else:
            labelled_sets.append(labelled)
    if not labelled_sets and first is not None:
        raise first
    if not labelled_sets:
        looked = "; ".join(m.looked_for[0] for m in missing)
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            f"none of the {len(missing)} sets is here; looked for {looked}, and for folders of their classes.",
            where=root,
            hint="Give each set a folder of its name with a labels.csv (file, label), or one folder for each class.",
        )
    return labelled_sets, missing, unusable


def _held_out(
    sets_here: Sequence[AnySet], hashes: Mapping[str, frozenset[str]] | None
) -> tuple[list[AnySet], list[MissingSet]]:
    """Leave the files that the pack's figures were measured on where a set asks for them; a set without is missing."""
    kept, missing = [], []
    measured = None if hashes is None else MeasuredFiles(hashes)
    for one in sets_here:
        if isinstance(one, MaskedSet):
            kept.append(one)
            continue
        held, part = one.held_out(measured), one.part
        if held.rows:
            kept.append(held)
        else:
            looked_for = f"files of {part.place} that the pack was measured on"
            missing.append(MissingSet(part.id, _group_of(part), (looked_for,)))
    if sets_here and not kept:
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            "none of the files here is one that the pack's figures were measured on.",
            hint="Name the data that the pack's card names; files that were stored anew are not recognised.",
        )
    return kept, missing


def _measure(run: _Run, labelled: LabelledSet) -> tuple[SetResult, pa.Table]:
    part, rows = labelled.part, labelled.rows
    run.progress.stage(part.id, len(rows))
    prompts = part.prompts()
    vectors = ClassVectors(part.names, encode_prompts(run.model, prompts), None)
    units = run.read(_images_of(labelled))
    # Of a task of the vocabulary the logits, whose areas over several classes hang on the model's scale.
    scale = run.model.logit_scale if part.task is not None else 1.0
    scored = [None if unit.problem is not None else _scores(unit, vectors, scale) for unit in units]
    good = np.array([scores_C is not None for scores_C in scored])
    labels = np.array([row.label for row in rows])[good]
    scores = np.array([scores_C for scores_C in scored if scores_C is not None]).reshape(-1, len(part.classes))
    seen = np.array([run.seen is not None and unit.sha256 in run.seen for unit in units])[good]
    # Numbered by first appearance: the draw of patients must not depend on the key that their names are hashed with.
    numbers: dict[Any, int] = {}
    whose = [numbers.setdefault(row.patient if labelled.has_patients else row.row, len(numbers)) for row in rows]
    patients = np.array(whose)[good]
    figures, unseen, fresh = _figures(labels, scores, patients, seen, run.num_resamples)
    features = [unit.features.mean(axis=0, dtype=np.float64) for unit in units if unit.problem is None]
    features_ND = np.array(features).reshape(-1, vectors.positive.shape[1])
    order = {patient: n for n, patient in enumerate(dict.fromkeys(patients.tolist()))}
    numbered, modality = [order[p] for p in patients.tolist()], None if part.modality == "generic" else part.modality
    # What the model was trained on it may know by its words without knowing anything else: without it where it can be.
    rows_N = ~np.isin(patients, patients[seen])
    if len(set(labels[rows_N].tolist())) < 2:
        rows_N = np.ones(len(labels), bool)
    wordings = other_wordings(prompts, modality)
    others_NKC, control = None, None
    if wordings is not None:
        others_NKC = wordings.scores(run.model, features_ND)
        control = compare_words(
            scores[rows_N],
            others_NKC[rows_N],
            wordings,
            labels[rows_N],
            patients[rows_N].tolist(),
            num_resamples=run.num_resamples,
        )
    sensitivity = None
    if run.sensitivity:
        sensitivity = measure_sensitivity(
            run.model,
            part.names,
            prompts,
            features_ND,
            labels,
            numbered,
            part.metric,
            num_resamples=run.num_resamples,
        )
    problems = Counter(str(unit.problem.reason) for unit in units if unit.problem is not None)
    result = SetResult(
        id=part.id,
        group=part.group,
        modality=str(part.modality),
        metric=part.metric,
        classes=part.names,
        prompts_per_class=tuple(len(sentences) for sentences in prompts),
        images_per_class=tuple(int((labels == c).sum()) for c in range(len(part.classes))),
        num_images=len(rows),
        num_read=int(good.sum()),
        num_left_out=labelled.num_left_out,
        problems=dict(sorted(problems.items())),
        num_patients=len(set(patients.tolist())) if labelled.names_patients else None,
        num_in_training=None if run.seen is None else int(seen.sum()),
        figures=figures,
        unseen=unseen,
        num_unseen=fresh,
        notes=tuple(_notes(run, labelled, units, labels)),
        word_control=control,
        sensitivity=sensitivity,
    )
    return result, _predictions(labelled, units, scored, run.seen, None if part.task is None else others_NKC)


def _figures_of(run: _Run, labelled: LabelledSet, store: SuiteStore | None) -> tuple[SetResult, pa.Table]:
    """Return what was measured of a set and its predictions, or measure it."""
    if store is None:
        return _measure(run, labelled)
    fingerprint = run.fingerprint(labelled)
    kept = store.kept(labelled.part.id, fingerprint)
    if kept is not None:
        return kept, store.predictions(labelled.part.id)
    result, table = _measure(run, labelled)
    store.keep(labelled.part.id, fingerprint, result, table)
    return result, table


def _texts_of(run: _Run, one: TextSet, store: SuiteStore | None) -> TextFigures:
    """Return what was measured of a source's texts, or measure it."""
    if store is None:
        return _measure_texts(run, one)
    fingerprint = run.fingerprint(one)
    figures = store.kept_texts(one.part.id, fingerprint)
    if figures is None:
        figures = _measure_texts(run, one)
        store.keep_texts(one.part.id, fingerprint, figures)
    return figures


def _measure_texts(run: _Run, one: TextSet) -> TextFigures:
    """Look for the texts of a source by its images, and for its images by their texts."""
    part = one.part
    run.progress.stage(part.id, len(one.rows))
    units = run.read(_images_of(one))
    rows = [(row, unit) for row, unit in zip(one.rows, units, strict=True) if unit.problem is None]
    numbers: dict[Any, int] = {}
    whose = [numbers.setdefault(row.patient or row.row, len(numbers)) for row, _ in rows]
    knows_patients = part.table.is_patient and all(row.patient for row, _ in rows)
    figures: dict[str, dict[str, Any]] = {}
    if rows:
        vectors = np.stack([mean_vector(unit.features) for _, unit in rows])
        figures = texts_measured(
            vectors,
            [row.text for row, _ in rows],
            whose,
            run.model,
            knows_patients=knows_patients,
            num_resamples=run.num_resamples,
        )
    held_out = run.model.card.held_out
    card_figures = {} if held_out is None else held_out.figures.get(retrieval_name(part.source_name), {})
    return TextFigures(
        id=part.id,
        source=part.source_name,
        num_images=len(rows),
        num_texts=len({row.text.strip().lower() for row, _ in rows}),
        num_patients=len(numbers) if knows_patients else None,
        problems=dict(sorted(Counter(str(u.problem.reason) for u in units if u.problem is not None).items())),
        figures=figures,
        on_card={name: dict(figure) for name, figure in card_figures.items()},
        note=part.note,
    )


def _scores(unit: ReadUnit, vectors: ClassVectors, scale: float) -> np.ndarray:
    """Return the cosine with each class vector times a scale, mean over views; float32 [C]."""
    cosines_VC = class_logits(unit.features, vectors, "multiclass", scale)
    return cosines_VC.mean(axis=0, dtype=np.float64).astype(np.float32)


def _figures(
    labels: np.ndarray, scores: np.ndarray, patients: np.ndarray, seen: np.ndarray, num_replicates: int
) -> tuple[Mapping[str, Figure], Mapping[str, Figure], int]:
    """Return the figures, those without training images and their patients, and how many images the latter are over."""
    if not len(labels):
        return {}, {}, 0
    figures = set_figures(labels, scores, patients.tolist(), num_resamples=num_replicates)
    fresh = ~np.isin(patients, patients[seen])
    if not seen.any() or len(set(labels[fresh].tolist())) < 2:
        return figures, {}, int(fresh.sum())
    some = patients[fresh].tolist()
    return figures, set_figures(labels[fresh], scores[fresh], some, num_resamples=num_replicates), int(fresh.sum())


def _notes(run: _Run, labelled: LabelledSet, units: Sequence[ReadUnit], labels: np.ndarray) -> list[str]:
    part = labelled.part
    notes = [part.note] if part.note else []
    absent = [name for c, name in enumerate(part.names) if not (labels == c).any()]
    if absent:
        notes.append(f"No image of: {', '.join(absent)}; means are over the other classes.")
    if part.held_out and not labelled.is_held_out:
        notes.append("The pack does not list the files that it was measured on: all files of the set are measured.")
    if labelled.ignores_split:
        why = "The table has no split column" if labelled.layout == "table" else "Class folders name no split"
        notes.append(f"{why}: all images are measured, not only {part.split!r}.")
    read = {unit.way for unit in units if unit.problem is None}
    strange = sorted(read - {"", *run.model.preprocess.adapters})
    if strange:
        ways = ", ".join(spoken(way) for way in strange)
        notes.append(f"The pack does not say that it was trained on {ways} images read in this way.")
    return notes


def _predictions(
    labelled: LabelledSet,
    units: Sequence[ReadUnit],
    scored: Sequence[np.ndarray | None],
    seen: frozenset[str] | None,
    others_NKC: np.ndarray | None,
) -> pa.Table:
    """One row for each image; no path and no identifier, the patient as a keyed hash."""
    import pyarrow as pa

    names = labelled.part.names
    best = [None if scores_C is None else names[int(scores_C.argmax())] for scores_C in scored]
    of_good = iter(() if others_NKC is None else [one_KC.ravel() for one_KC in others_NKC])
    words = [None if scores_C is None else next(of_good, None) for scores_C in scored]
    columns = {
        "set": pa.array([labelled.part.id] * len(scored), pa.string()),
        "row": pa.array([row.row for row in labelled.rows], pa.int64()),
        "sha256": pa.array([unit.sha256 or None for unit in units], pa.string()),
        "patient": pa.array([row.patient for row in labelled.rows], pa.string()),
        "label": pa.array([names[row.label] for row in labelled.rows], pa.string()),
        "predicted": pa.array(best, pa.string()),
        "scores": pa.array(scored, pa.list_(pa.float32())),
        "in_training": pa.array([None if seen is None else unit.sha256 in seen for unit in units], pa.bool_()),
        OTHER_WORDS: pa.array(words, pa.list_(pa.float32())),
        "reason": pa.array([unit.problem and str(unit.problem.reason) for unit in units], pa.string()),
        "message": pa.array([unit.problem and unit.problem.message for unit in units], pa.string()),
    }
    return pa.table(columns)
