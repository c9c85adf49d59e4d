"""How far a student agrees with its teacher on images that it did not learn from, and how much faster it is."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.evaluation.shard_split import blocks_of, choose_rows
from medclip.models.prototypes.class_vectors import class_logits, class_vectors
from medclip.progress import Progress
from medclip.shards.reading.samples import ShardReader
from medclip.statistics.estimate import NUM_RESAMPLES, Estimate
from medclip.statistics.metrics.classification import numbered
from medclip.statistics.resampling.resampled import bounded, interval_of, share
from medclip.statistics.resampling.standard_errors import effective_patients
from medclip.statistics.resampling.sums import ratios
from medclip.statistics.resampling.weights import draw_weights
from medclip.text.vocabulary.load import load_task, task_names
from medclip.training.batches.samples import Drawing, Room, Samples

if TYPE_CHECKING:
    from medclip.models.model import Model

_MOST = 2000
_TIMED, _ROUNDS = 32, 5


@dataclass(frozen=True)
class TaskAgreement:
    """How often both give the same answer to a task; of findings, the mean over them."""

    share: Estimate
    constant: float
    """The share that would agree with the teacher if its commonest answer were always given."""


@dataclass(frozen=True)
class Agreement:
    """Agreement of a student with its teacher."""

    split: str
    num_images: int
    num_patients: int | None
    """None where the shards do not say whose images they are."""
    cosine: Estimate
    """Mean cosine between both vectors of an image."""
    tasks: Mapping[str, TaskAgreement]
    speed_ratio: float
    """Images a second of the student over those of the teacher: median of rounds in turn, on this machine."""
    speed_range: tuple[float, float]
    """The least and the largest of these rounds."""

    @property
    def speed_in_words(self) -> str:
        """The ratio with its range."""
        low, high = self.speed_range
        return f"{self.speed_ratio:.2f} times the teacher's ({low:.2f} to {high:.2f} in {_ROUNDS} rounds)"

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each task."""
        return [
            {
                "task": name,
                "agreement": one.share.value,
                "low": one.share.low,
                "high": one.share.high,
                "constant": one.constant,
            }
            for name, one in self.tasks.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        cosine = {"value": self.cosine.value, "low": self.cosine.low, "high": self.cosine.high}
        return {**vars(self), "cosine": cosine, "tasks": self.rows()}


def measure_agreement(
    teacher: Model, student: Model, shards: Path, split: str, progress: Progress
) -> tuple[Agreement, list[str]]:
    """Ask both the tasks of the teacher's card in words, without the card's calibration, on a split.

    Returns:
        The agreement, and what a reader must know of its intervals.

    Raises:
        MedclipError: NOTHING_TO_DO where no image of the split can be read.
    """
    models = (teacher, student)
    with ShardReader(shards, split) as reader, ThreadPoolExecutor(2) as pool:
        held = choose_rows(reader, frozenset(), _MOST)
        progress.stage("Comparing with the teacher", 2 * len(held.rows))
        vectors, places, timed = [], [], []
        for model in models:
            samples = Samples(reader, Drawing(model.preprocess, 0, None, 0.0, 0.0, words=False), Room(0))
            of_model, kept, few = [], [], []
            for at, block in blocks_of(pool, samples, held.rows, model.batch_size):
                good = [(at + i, one.image) for i, one in enumerate(block) if one.image is not None]
                if good:
                    images = np.stack([image for _, image in good])
                    of_model.append(model.encode_image(images))
                    kept += [i for i, _ in good]
                    few += list(images[: _TIMED - len(few)])
                progress.step(len(block))
            if not kept:
                raise MedclipError(
                    Reason.NOTHING_TO_DO, f"no image of the split {split!r} can be read.", where=reader.folder
                )
            vectors.append(np.concatenate(of_model))
            places.append(kept)
            timed.append(np.stack(few))
    whose, notes = held.whose(places[0])
    patients_N = numbered(whose)
    tasks = {}
    for name, card in student.card.tasks.items():
        if name not in task_names() or not load_task(name).has_words:
            continue
        first, second = (_answers(model, of, name, card.classes) for model, of in zip(models, vectors, strict=True))
        tasks[name] = _agreement(first, second, patients_N)
    point, drawn_B, patients = _means((vectors[0] * vectors[1]).sum(axis=1), patients_N)
    cosine = interval_of(bounded(point, drawn_B, patients=patients, least=-1.0))
    named = int(patients_N.max()) + 1 if held.names_patients else None
    return Agreement(split, len(places[0]), named, cosine, tasks, *_speed_ratio(models, timed)), notes


def _answers(model: Model, vectors_ND: NDArray[np.float32], name: str, classes: Sequence[str]) -> NDArray[np.int64]:
    """Return the number of the class, [N, 1], or yes and no for each finding, [N, C]."""
    task = load_task(name)
    present = [c.name for c in task.classes if c.name in classes] or None
    logits_NC = class_logits(vectors_ND, class_vectors(model, task, present), task.kind, model.logit_scale)
    if task.rules.independent:
        return (logits_NC > 0).astype(np.int64)
    return logits_NC.argmax(axis=1)[:, None]


def _agreement(
    teacher_NC: NDArray[np.int64], student_NC: NDArray[np.int64], patients_N: NDArray[np.int64]
) -> TaskAgreement:
    equal_N, number = (teacher_NC == student_NC).mean(axis=1), float(len(teacher_NC))
    point, drawn_B, patients = _means(equal_N, patients_N)
    estimate = interval_of(share(point, drawn_B, cases=number, patients=patients))
    commonest = [np.bincount(column).max() / number for column in teacher_NC.T]
    return TaskAgreement(estimate, float(np.mean(commonest)))


def _means(value_N: NDArray[np.floating], patients_N: NDArray[np.int64]) -> tuple[float, NDArray[np.float64], float]:
    """Return the mean, that of each resample of patients, and the effective number of patients."""
    weights_PB = draw_weights(int(patients_N.max()) + 1, NUM_RESAMPLES, seed=0)
    point, drawn = ratios(patients_N, weights_PB, value_N[None].astype(np.float64), np.ones((1, len(value_N))))
    return float(point[0]), drawn[0], effective_patients(patients_N)


def _speed_ratio(models: Sequence[Model], images: Sequence[NDArray[np.uint8]]) -> tuple[float, tuple[float, float]]:
    """Time both on the same images, in turn, so that a busy machine troubles both alike."""
    seconds: list[list[float]] = [[] for _ in models]
    for turn in range(_ROUNDS + 1):
        for of_model, model, some in zip(seconds, models, images, strict=True):
            begin = time.perf_counter()
            model.encode_image(some)
            if turn:  # the first one warms up
                of_model.append(time.perf_counter() - begin)
    rounds = [of_teacher / of_student for of_teacher, of_student in zip(*seconds, strict=True)]
    return median(rounds), (min(rounds), max(rounds))
