"""Measure a pack on one set of a suite, or return what was measured of it before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.embeddings.embeddings_reader import EmbeddingsReader
from medclip.evaluation.word_control import compare_words, other_wordings
from medclip.evaluation.zero_shot.figures import OTHER_WORDS, TextFigures, retrieval_name, set_figures, texts_measured
from medclip.evaluation.zero_shot.labelled_set import LabelledSet, TextSet
from medclip.evaluation.zero_shot.sensitivity import measure_sensitivity
from medclip.evaluation.zero_shot.sets_here import AnySet, StoredImage, images_of
from medclip.evaluation.zero_shot.suite_result import SetResult, SuiteStore
from medclip.files.output import digest_of
from medclip.models.encoding.unit_reader import ReadUnit, UnitReader
from medclip.models.prototypes.class_vectors import ClassVectors, class_logits, encode_prompts, mean_vector
from medclip.progress import Progress
from medclip.sample import spoken
from medclip.statistics.estimate import Figure

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 5
"""Raise when the same images give other figures or other columns: results of before are then computed again."""


@dataclass(frozen=True)
class SetRun:
    """What every set of an evaluation needs."""

    model: Any
    seen: frozenset[str] | None
    reader: UnitReader | EmbeddingsReader
    num_resamples: int
    progress: Progress
    sensitivity: bool
    shared: frozenset[StoredImage]
    """Images of several sets: they are read once."""
    made_of: tuple[Any, ...]
    """What figures hang on beside the data. Another device or batch size may change the last bits."""
    base: Path
    """Folder that images lie below."""
    known: dict[StoredImage, ReadUnit] = field(default_factory=dict)

    def fingerprint(self, one: AnySet) -> str:
        """Hash what the figures of a set are made of."""
        return digest_of([FORMAT, one.digest(self.base), *self.made_of])

    def read(self, images: Sequence[StoredImage]) -> list[ReadUnit]:
        """Read and encode images, but those of before."""
        new = [image for image in images if image not in self.known]
        self.progress.step(len(images) - len(new))
        units = self.reader.read(new, self.progress.step, keep_pixels=False)
        of_these = dict(zip(new, units, strict=True))
        self.known.update({image: unit for image, unit in of_these.items() if image in self.shared})
        return [self.known.get(image) or of_these[image] for image in images]


def figures_of_set(run: SetRun, labelled: LabelledSet, store: SuiteStore | None) -> tuple[SetResult, pa.Table]:
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


def figures_of_texts(run: SetRun, one: TextSet, store: SuiteStore | None) -> TextFigures:
    """Return what was measured of a source's texts, or measure it."""
    if store is None:
        return _measure_texts(run, one)
    fingerprint = run.fingerprint(one)
    figures = store.kept_texts(one.part.id, fingerprint)
    if figures is None:
        figures = _measure_texts(run, one)
        store.keep_texts(one.part.id, fingerprint, figures)
    return figures


def _measure(run: SetRun, labelled: LabelledSet) -> tuple[SetResult, pa.Table]:
    part, rows = labelled.part, labelled.rows
    run.progress.stage(part.id, len(rows))
    prompts = part.prompts()
    vectors = ClassVectors(part.names, encode_prompts(run.model, prompts), None)
    units = run.read(images_of(labelled))
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


def _measure_texts(run: SetRun, one: TextSet) -> TextFigures:
    """Look for the texts of a source by its images, and for its images by their texts."""
    part = one.part
    run.progress.stage(part.id, len(one.rows))
    units = run.read(images_of(one))
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


def _notes(run: SetRun, labelled: LabelledSet, units: Sequence[ReadUnit], labels: np.ndarray) -> list[str]:
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
