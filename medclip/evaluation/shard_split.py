"""Measure a model on a split of shards that it was not trained on: the tasks of its labels, and retrieval.

A pack's own head answers its own task, and its words all others; an image-only pack answers its own task alone.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.data.class_text import class_text
from medclip.adaptation.pack.pack_head import PackHead, read_pack_heads
from medclip.errors import MedclipError, Reason
from medclip.evaluation.among_ill import AMONG_ILL, measure_among_ill
from medclip.evaluation.label_retrieval import recall_figures
from medclip.evaluation.word_control import measure_task_words
from medclip.models.packs.card import SplitFigures
from medclip.models.packs.word_control import WordControl
from medclip.models.prototypes.class_vectors import class_logits, class_vectors
from medclip.progress import Progress, Silent
from medclip.sample import Modality
from medclip.statistics.estimate import DECIMALS, NUM_RESAMPLES, Estimate, Figure
from medclip.statistics.metrics import classification
from medclip.statistics.resampling.resampled import interval_of
from medclip.statistics.resampling.weights import draw_weights
from medclip.text.vocabulary.load import load_task, task_names
from medclip.text.vocabulary.task import Task
from medclip.training.batches.sample_texts import view_of
from medclip.training.batches.samples import Drawing, Made, Room, Samples
from medclip.wording import list_of

if TYPE_CHECKING:
    from medclip.models.model import Model
    from medclip.shards.reading.samples import ShardReader


_AHEAD = 2


@dataclass(frozen=True, eq=False)
class HeldOutRows:
    """N samples of a split that nothing was learned from."""

    rows: NDArray[np.int64]
    """Their numbers in the split."""
    patients: tuple[str | None, ...]
    """Of each; None where the shards do not say."""
    sources: tuple[str, ...]
    num_seen: int
    """Samples left out because they, or another one of their patient, were trained on."""
    limit: int | None
    """The most that were asked for."""

    @property
    def names_patients(self) -> bool:
        """Whether the shards say whose each image is."""
        return None not in self.patients

    def whose(self, places: Sequence[int]) -> tuple[list[Hashable], list[str]]:
        """Return what resamples are drawn of, for some of the rows, and what a reader must know of it."""
        notes = []
        whose: list[Hashable] = [self.patients[i] for i in places]
        if not self.names_patients:
            whose = list(range(len(whose)))
            notes.append(
                "The shards do not say whose each image is: intervals are over images, which makes them narrow."
            )
        if self.limit is not None and len(self.rows) == self.limit:
            notes.append(
                f"At most {self.limit:,} images were to be measured, spread evenly over the split (data.max_test)."
            )
        return whose, notes


def choose_rows(reader: ShardReader, seen: frozenset[str], limit: int | None) -> HeldOutRows:
    """Choose the samples of a split to measure on.

    Args:
        reader: The split.
        seen: sha256 of the training files and hashes of the training patients; what is among them is left out.
        limit: The most samples, spread evenly over the split.

    Raises:
        MedclipError: NOTHING_TO_DO when none is left.
    """
    kept, patients, sources, num_seen = [], [], [], 0
    for i, row in enumerate(reader.provenance()):
        if not seen.isdisjoint({*row["files"], row["patient"]}):
            num_seen += 1
            continue
        kept.append(i)
        patients.append(row["patient"] if row["patient"] and row["names_patient"] else None)
        sources.append(str(row["source"] or "unnamed"))
    if not kept:
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            f"all images of the split {reader.split!r} are of patients or files that the model was trained on.",
            where=reader.folder,
            hint="Name a split of other patients with data.test_split; data.test_split=null measures none.",
        )
    places = list(range(len(kept)))
    if limit is not None and len(kept) > limit:
        places = np.unique(np.linspace(0, len(kept) - 1, limit).round().astype(np.int64)).tolist()
    return HeldOutRows(
        np.array([kept[i] for i in places], np.int64),
        tuple(patients[i] for i in places),
        tuple(sources[i] for i in places),
        num_seen,
        limit,
    )


def blocks_of(
    pool: ThreadPoolExecutor, samples: Samples, rows: NDArray[np.int64], size: int
) -> Iterator[tuple[int, list[Made]]]:
    """Yield samples in blocks, each with the place of its first; a few blocks are read ahead."""
    waiting: deque[tuple[int, list[Future[Made]]]] = deque()
    for start in range(0, len(rows), size):
        waiting.append((start, [pool.submit(samples.make, 0, int(i)) for i in rows[start : start + size]]))
        if len(waiting) > _AHEAD:
            yield _waited(*waiting.popleft())
    while waiting:
        yield _waited(*waiting.popleft())


def _waited(place: int, futures: Sequence[Future[Made]]) -> tuple[int, list[Made]]:
    return place, [future.result() for future in futures]


MODALITY = "modality"
"""The task that the images in the generic rendering are asked."""
RETRIEVAL = "retrieval"
WITHIN = "macro_auroc_within"
"""Areas by source."""
VIEWS = "views"
OfVectors = Callable[[NDArray[np.float32], NDArray[np.int64], Sequence[Hashable]], tuple[dict[str, Any], list[str]]]
_WHEN = {"zero_shot": "After training", "start": "Before"}


@dataclass(frozen=True, eq=False)
class _Encoded:
    """The N samples that could be read."""

    images_ND: NDArray[np.float32]
    texts_ND: NDArray[np.float32]
    facts: tuple[Any, ...]
    """[generic, modality, view, labels] of each, as `label_key` writes them; None where only a text is known."""
    answers: tuple[str, ...]
    """What makes an image and a text belong together: equal labels, or equal words where there are none."""
    places: NDArray[np.int64]
    """Which of the asked rows they are."""
    problems: Mapping[str, int]


def measure_split(
    model: Model,
    reader: ShardReader,
    drawing: Drawing,
    *,
    start: Model | None = None,
    seen: frozenset[str] = frozenset(),
    limit: int | None = None,
    workers: int = 2,
    num_resamples: int = NUM_RESAMPLES,
    progress: Progress | None = None,
    of_vectors: OfVectors | None = None,
) -> SplitFigures:
    """Measure a model on a split of shards, patient by patient.

    Every task that the labels of the split speak of is asked in words, as `medclip evaluate` asks it; for findings that
    may occur together each class with enough patients has its area. Where images of a task come from several sources,
    the area within each of them stands beside: over all of them, telling sources apart passes for knowing the answer.
    Retrieval is between each image and a caption that is drawn of its record. A pack with a head of its own, as
    fine-tuning makes it, answers its task with that, and each class has its area, the worst first. Intervals resample
    patients.

    Args:
        model: A loaded pack.
        reader: The split.
        drawing: Rules by which captions are drawn, as for validation; the size of images is each model's own.
        start: Model that training began with: measured on the same images, beside.
        seen: sha256 of the training files and hashes of the training patients; what is among them is left out.
        limit: Samples measured at most, spread evenly over the split.
        workers: Threads that read and decode.
        num_resamples: Resamples of patients.
        progress: Progress bar of the images.
        of_vectors: Function that returns figures of the vectors alone, "views", and sentences; it is called of each
            model's with the numbers of the samples and their patients.

    Returns:
        The figures, as a card holds them.

    Raises:
        MedclipError: Its shards are gone or not what the index says; NOTHING_TO_DO when no image is left to measure.
    """
    progress_bar = progress or Silent()
    held = choose_rows(reader, seen, limit)
    models = {"zero_shot": model} | ({"start": start} if start is not None else {})
    encoded = {}
    for name, one in models.items():
        progress_bar.stage(
            f"Measuring on the split {reader.split}" + (", start" if name == "start" else ""), len(held.rows)
        )
        encoded[name] = _encode(one, reader, held.rows, drawing, workers, progress_bar)
    first, heads = encoded["zero_shot"], read_pack_heads(model.path, model.card)
    whose, notes = held.whose(first.places.tolist())
    of_source = [held.sources[i] for i in first.places.tolist()]
    figures: dict[str, Any] = {}
    more: list[str] = []
    for pack_head in heads.values():
        of_head, unmeasured = _own_task(pack_head, model, first, whose, num_resamples)
        figures, more = figures | of_head, [*more, *unmeasured]
    if model.has_text:
        in_words, unmeasured = _tasks(models, encoded, whose, of_source, num_resamples, frozenset(heads))
        figures, more = figures | in_words, [*more, *unmeasured]
    if model.has_text and len(first.facts) > 1:
        figures[RETRIEVAL] = _retrieval(encoded, whose, num_resamples)
    if of_vectors is not None:
        rows = held.rows[first.places]
        of_each = {rival: of_vectors(one.images_ND, rows, whose) for rival, one in encoded.items()}
        figures[VIEWS] = _side_by_side({rival: one for rival, (one, _) in of_each.items()})
        more += [f"{_WHEN[rival]}: {sentence}" for rival, (_, notes_of) in of_each.items() for sentence in notes_of]
    return SplitFigures(
        split=reader.split,
        shards=hashlib.sha256("".join(reader.shard_hashes).encode()).hexdigest(),
        num_images=len(first.facts),
        num_patients=len(set(whose)) if held.names_patients else None,
        num_in_training=held.num_seen,
        problems=dict(sorted(first.problems.items())),
        figures=figures,
        word_control=_word_controls(model, first, whose, figures, frozenset(heads), num_resamples),
        notes=(*notes, *more),
    )


def _encode(
    model: Model,
    reader: ShardReader,
    rows: NDArray[np.int64],
    drawing: Drawing,
    workers: int,
    progress: Progress,
) -> _Encoded:
    budget = model.preprocess.budget
    drawing = replace(drawing, preprocess=model.preprocess)
    samples = Samples(reader, drawing, Room(0))
    images, texts, keys, places = [], [], [], []
    problems: Counter[str] = Counter()
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for start, block in blocks_of(pool, samples, rows, model.batch_size):
            good = [(start + n, sample) for n, sample in enumerate(block) if sample.image is not None]
            problems.update(str(sample.bad) for sample in block if sample.image is None)
            pixels = [image for _, sample in good for image in sample.images]
            if pixels:
                taken = np.stack(pixels) if budget is None else [budget.unpack(packed) for packed in pixels]
                vectors = model.encode_image(taken)
                images.append(_fused(model, vectors, [sample for _, sample in good]) if drawing.of_exam else vectors)
            texts += [sample.text for _, sample in good]
            keys += [sample.label_key for _, sample in good]
            places += [place for place, _ in good]
            progress.step(len(block))
    width = images[0].shape[1] if images else 0
    return _Encoded(
        images_ND=np.concatenate(images) if images else np.zeros((0, 0), np.float32),
        texts_ND=model.encode_text(texts) if texts and model.has_text else np.zeros((0, width), np.float32),
        facts=tuple(json.loads(key) if key else None for key in keys),
        answers=tuple(key or text.strip().lower() for key, text in zip(keys, texts, strict=True)),
        places=np.array(places, np.int64),
        problems=problems,
    )


def _fused(model: Model, vectors_ND: NDArray[np.float32], samples: Sequence[Made]) -> NDArray[np.float32]:
    """Make one vector of the views of each examination: by the model's fusion, or their unit mean without one."""
    ends = np.cumsum([len(sample.images) for sample in samples])
    rows = []
    for views_VD, sample in zip(np.split(vectors_ND, ends[:-1]), samples, strict=True):
        if model.fusion is not None:
            rows.append(model.fuse(views_VD, [view_of(numbers) for numbers in sample.types])[0])
        else:
            mean_D = views_VD.astype(np.float64).mean(axis=0)
            rows.append((mean_D / max(1e-12, np.linalg.norm(mean_D))).astype(np.float32))
    return np.stack(rows)


def _tasks(
    models: Mapping[str, Model],
    encoded: Mapping[str, _Encoded],
    whose: Sequence[Hashable],
    sources: Sequence[str],
    num_resamples: int,
    excluded: frozenset[str],
) -> tuple[dict[str, Any], list[str]]:
    """Measure each task that the labels speak of, but those `excluded`; return figures by task, and what lacks them."""
    facts, labels = encoded["zero_shot"].facts, _labels(encoded["zero_shot"])
    figures: dict[str, Any] = {}
    notes: list[str] = []
    generic = [{MODALITY: fact[1]} if fact is not None and fact[0] and fact[1] else {} for fact in facts]
    vocabulary = set(task_names())
    for name in sorted({task for label in labels for task in label} - excluded):
        if name not in vocabulary:
            notes.append(f"The labels speak of {name!r}, which is no task of the vocabulary: it was not measured.")
            continue
        task = load_task(name)
        if not task.has_words:
            notes.append(f"{name} is a risk, which words do not ask: it was not measured here.")
            continue
        measured = _task(task, labels, models, encoded, whose, num_resamples, notes)
        if measured:
            measured[name] |= _within(task, labels, models, encoded, whose, sources, num_resamples, notes)
            measured[name] |= among_ill_figures(task, labels, models, encoded, whose, num_resamples)
        figures |= measured
    if len({label[MODALITY] for label in generic if label}) > 1:
        figures |= _task(load_task(MODALITY), generic, models, encoded, whose, num_resamples, notes)
    return figures, notes


def _word_controls(
    model: Model,
    encoded: _Encoded,
    whose: Sequence[Hashable],
    figures: Mapping[str, Any],
    excluded: frozenset[str],
    num_resamples: int,
) -> dict[str, dict[str, WordControl]]:
    """Measure the words of each task that has figures in words."""
    vocabulary = {*task_names()} - excluded - {MODALITY}
    controls = {}
    for name in (name for name in figures if name in vocabulary and model.has_text):
        text, labels = class_text(load_task(name)), _labels(encoded)
        rows = np.array([i for i, label in enumerate(labels) if label.get(name) is not None], np.int64)
        truth = [labels[i][name] for i in rows.tolist()]
        targets = text.rules.truth_of(text.task, truth, text.names).astype(np.float32)
        if not text.rules.independent:
            rows, targets = rows[targets[:, 0] < len(text.names)], targets[targets[:, 0] < len(text.names), 0]
        modalities = {encoded.facts[i][1] for i in rows.tolist()}
        of_task = measure_task_words(
            model,
            text,
            encoded.images_ND[rows],
            targets,
            [whose[i] for i in rows.tolist()],
            Modality(modalities.pop()) if len(modalities) == 1 else None,
            num_resamples=num_resamples,
        )
        controls |= {name: of_task} if of_task else {}
    return controls


def _labels(encoded: _Encoded) -> list[Mapping[str, Any]]:
    return [fact[3] if fact is not None and not fact[0] else {} for fact in encoded.facts]


def _own_task(
    pack_head: PackHead, model: Model, encoded: _Encoded, whose: Sequence[Hashable], num_resamples: int
) -> tuple[dict[str, Any], list[str]]:
    """Measure a pack's own head: the mean over its classes, and each of them, the worst first."""
    task, names, labels = pack_head.text.task, pack_head.text.names, _labels(encoded)
    truth = [label.get(task.name) for label in labels]
    rows = np.array([i for i, answer in enumerate(truth) if answer is not None], np.int64)
    patients = [whose[i] for i in rows.tolist()]
    unmeasured = [f"{task.title} could not be measured: too few patients of more than one answer."]
    if not len(rows):
        return {}, unmeasured
    logits_NC, rules = pack_head.head.logits(encoded.images_ND[rows], model), task.rules
    figures: dict[str, Any] = {}
    targets_NC = rules.truth_of(task, [truth[i] for i in rows.tolist()], names).astype(np.float32)
    if rules.one_answer:
        inside = targets_NC[:, 0] < len(names)
        targets_N = targets_NC[inside, 0].astype(np.int64)
        if len(set(targets_N.tolist())) < 2:
            return {}, unmeasured
        patients, logits_NC = [p for p, ok in zip(patients, inside, strict=True) if ok], logits_NC[inside]
        figures = _classes(targets_N, patients, {"zero_shot": logits_NC}, task, names, num_resamples)
        targets_NC = np.eye(len(names), dtype=np.float32)[targets_N]
        logits_NC = classification.ranked_scores(logits_NC, False)
    test = classification.HeldOut(targets_NC, classification.numbered(patients), len(names))
    areas = _findings(names, test, {"zero_shot": logits_NC}, num_resamples)
    by_class = areas.pop("auroc", None)
    figures = areas | figures
    if not figures:
        return {}, unmeasured
    if by_class and (not rules.one_answer or len(names) > 2):  # of two exclusive classes both areas are the same
        order = None if rules.timed else lambda entry: entry[1]["value"]
        figures["auroc"] = by_class if order is None else dict(sorted(by_class.items(), key=order))
    lacking = [name for name in names if by_class is not None and name not in by_class]
    notes = [f"No area is given for {list_of(lacking)}: too few test patients with or without."] if lacking else []
    return {task.name: figures}, notes


def _task(
    task: Task,
    labels: Sequence[Mapping[str, Any]],
    models: Mapping[str, Model],
    encoded: Mapping[str, _Encoded],
    whose: Sequence[Hashable],
    num_resamples: int,
    notes: list[str],
) -> dict[str, Any]:
    names = [c.name for c in task.classes]
    rows = np.array([i for i, label in enumerate(labels) if label.get(task.name) is not None], np.int64)
    truth = [labels[i][task.name] for i in rows.tolist()]
    logits = {
        rival: class_logits(encoded[rival].images_ND[rows], class_vectors(one, task), task.kind, one.logit_scale)
        for rival, one in models.items()
    }
    patients = [whose[i] for i in rows.tolist()]
    targets_NC = task.rules.truth_of(task, truth, names).astype(np.float32)
    if task.rules.independent:
        test = classification.HeldOut(targets_NC, classification.numbered(patients), len(names))
        figures = _findings(names, test, logits, num_resamples)
    else:
        inside = targets_NC[:, 0] < len(names)
        targets_N = targets_NC[inside, 0].astype(np.int64)
        people = [p for p, ok in zip(patients, inside, strict=True) if ok]
        figures = {}
        if len(set(targets_N.tolist())) > 1:
            inside_logits = {rival: of[inside] for rival, of in logits.items()}
            figures = _classes(targets_N, people, inside_logits, task, names, num_resamples)
    if not figures:
        notes.append(f"{task.title} could not be measured: too few patients of more than one answer.")
        return {}
    return {task.name: figures}


def _within(
    task: Task,
    labels: Sequence[Mapping[str, Any]],
    models: Mapping[str, Model],
    encoded: Mapping[str, _Encoded],
    whose: Sequence[Hashable],
    sources: Sequence[str],
    num_resamples: int,
    notes: list[str],
) -> dict[str, Any]:
    """Measure a task among the images of each source; nothing where all of them are of one."""
    names = sorted({source for source, label in zip(sources, labels, strict=True) if label.get(task.name) is not None})
    if len(names) < 2:
        return {}
    areas, without = {}, []
    for name in names:
        of_source = [label if source == name else {} for source, label in zip(sources, labels, strict=True)]
        area = None
        if _has_two_answers(task, of_source, whose):
            figures = _task(task, of_source, models, encoded, whose, num_resamples, [])
            area = figures.get(task.name, {}).get("macro_auroc")
        if area is None:
            without.append(name)
        else:
            areas["_".join(name.split())] = area
    if without:
        notes.append(
            f"{task.title} could not be measured within {list_of(without, most=5)}: too few patients of more than one "
            "answer. The figure over all sources may tell these sources apart instead."
        )
    return {WITHIN: areas} if areas else {}


def among_ill_figures(
    task: Task,
    labels: Sequence[Mapping[str, Any]],
    models: Mapping[str, Model],
    encoded: Mapping[str, _Encoded],
    whose: Sequence[Hashable],
    num_resamples: int,
) -> dict[str, Any]:
    """Measure every two findings of a task against each other; nothing for a task of one answer."""
    if not task.rules.independent:
        return {}
    names = [c.name for c in task.classes]
    rows = np.array([i for i, label in enumerate(labels) if label.get(task.name) is not None], np.int64)
    targets_NC = task.rules.truth_of(task, [labels[i][task.name] for i in rows.tolist()], names)
    patients = [whose[i] for i in rows.tolist()]
    pairs: dict[str, dict[str, Any]] = {}
    for rival, model in models.items():
        features_ND = encoded[rival].images_ND[rows]
        figures = measure_among_ill(model, task, names, features_ND, targets_NC, patients, num_resamples=num_resamples)
        for pair, one in figures.items():
            pairs.setdefault(pair, {})[rival] = {**asdict(one), "chance": 0.5}
    return {AMONG_ILL: pairs} if pairs else {}


def _has_two_answers(task: Task, labels: Sequence[Mapping[str, Any]], whose: Sequence[Hashable]) -> bool:
    """Whether two answers of a multi-class task have enough patients; of findings `_findings` knows itself."""
    if task.rules.independent:
        return True
    given = zip(labels, whose, strict=True)
    patients = Counter(answer for answer, _ in {(label[task.name], w) for label, w in given if label.get(task.name)})
    return sum(number >= classification.FEWEST for number in patients.values()) > 1


def _classes(
    targets_N: NDArray[np.int64],
    patients: Sequence[Hashable],
    logits: Mapping[str, NDArray[np.float32]],
    task: Task,
    names: Sequence[str],
    num_resamples: int,
) -> dict[str, Any]:
    metrics, steps = task.rules.metrics, task.step_numbers(names)
    num_classes = next(iter(logits.values())).shape[1]
    chance = {"accuracy": 1 / num_classes, "balanced_accuracy": 1 / num_classes, "macro_auroc": 0.5, "auroc": 0.5}
    size = {"num_images": len(targets_N), "num_patients": len(set(patients))}
    measured = {
        rival: classification.measured(targets_N, values, patients, metrics, steps=steps, num_resamples=num_resamples)
        for rival, values in logits.items()
    }
    return {
        metric: _rivals({k: interval_of(v[metric]) for k, v in measured.items()}, chance.get(metric), size)
        for metric in metrics
        if metric in measured["zero_shot"]
    }


def _findings(
    names: Sequence[str], test: classification.HeldOut, logits: Mapping[str, NDArray[np.floating]], num_resamples: int
) -> dict[str, Any]:
    chosen = test.measured() if len(test.targets) else ()
    if not chosen:
        return {}
    weights_PB = draw_weights(test.num_patients, num_resamples, seed=0)
    mean = {k: classification.figures(v[None], test, weights_PB, ["macro_auroc"]) for k, v in logits.items()}
    by_class = {}
    for c in chosen:
        sides = test.sides(c)
        rows = np.sort(np.concatenate(sides))
        one = classification.HeldOut(test.targets[rows, c : c + 1], test.patients[rows], 1)
        areas = {
            k: interval_of(
                classification.figures(v[None, rows, c : c + 1], one, weights_PB, ["macro_auroc"])["macro_auroc"]
            )
            for k, v in logits.items()
        }
        size = {
            "num_images": len(rows),
            "num_positive": len(sides[0]),
            "num_patients": len(set(test.patients[rows].tolist())),
        }
        by_class[names[c]] = _rivals(areas, 0.5, size)
    size = {"num_images": len(test.targets), "num_patients": test.num_patients, "num_classes": len(chosen)}
    every = {k: interval_of(v["macro_auroc"]) for k, v in mean.items()}
    return {"macro_auroc": _rivals(every, 0.5, size), **({"auroc": by_class} if len(names) > 1 else {})}


def _retrieval(encoded: Mapping[str, _Encoded], whose: Sequence[Hashable], num_resamples: int) -> dict[str, Any]:
    answers = encoded["zero_shot"].answers
    figures = {
        rival: recall_figures(e.images_ND, e.texts_ND, answers, whose, knows_patients=True, num_resamples=num_resamples)
        for rival, e in encoded.items()
    }
    return {name: _by_rival({rival: of[name] for rival, of in figures.items()}) for name in figures["zero_shot"]}


def _rivals(estimates: Mapping[str, Estimate], chance: float | None, size: Mapping[str, int]) -> dict[str, Any]:
    """Write figures as a card has them: one alone as it is, several by their names."""
    written: dict[str, dict[str, Any]] = {}
    for rival, estimate in estimates.items():
        figure = Figure.of(estimate)
        values: dict[str, Any] = {"value": figure.value, "low": figure.low, "high": figure.high}
        at_random = {} if chance is None else {"chance": round(chance, DECIMALS)}
        written[rival] = values | at_random | dict(size)
    return _by_rival(written)


def _side_by_side(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Put figures of the same names of several models side by side; one that a model lacks is left out."""
    joint: dict[str, Any] = {}
    for name, node in figures["zero_shot"].items():
        nodes = {rival: of[name] for rival, of in figures.items() if name in of}
        if len(nodes) == len(figures):
            joint[name] = _by_rival(nodes) if "value" in node else _side_by_side(nodes)
    return joint


def _by_rival(figures: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return figures if len(figures) > 1 else figures["zero_shot"]
