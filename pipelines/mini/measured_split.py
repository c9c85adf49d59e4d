"""A split of the shards in memory: its images, their vectors, their labels, whose they are and where they come from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shared_sets import CHEST_FILMS, PATIENTS_KNOWN

from medclip.imaging.geometry import letterbox
from medclip.models.packs.pack import Model
from medclip.shards.reading.samples import ShardReader
from medclip.statistics.metrics.classification import FEWEST
from medclip.text.captions.record import CaptionRecord
from medclip.text.vocabulary.load import load_task, task_names

MODALITY = "modality"


@dataclass(frozen=True)
class Judged:
    """On which images a finding is judged."""

    source: str | None = None
    """Of one source only."""
    among: str | None = None
    """Only images that have this other finding."""


@dataclass(frozen=True, eq=False)
class OfUnits:
    """Rows of U files or records, in the order of the split: five cuttings of an ECG are one record."""

    first_U: NDArray[np.intp]
    """The first row of each."""
    unit_N: NDArray[np.intp]
    """Of each row."""

    def mean(self, scores_N: NDArray[np.floating]) -> NDArray[np.floating]:
        """Average the scores, [N] or [N, C], of the images of each."""
        sums = np.zeros((len(self.first_U), *scores_N.shape[1:]))
        np.add.at(sums, self.unit_N, scores_N)
        numbers = np.bincount(self.unit_N).reshape(-1, *[1] * (scores_N.ndim - 1))
        return (sums / numbers).astype(scores_N.dtype)


@dataclass(frozen=True, eq=False)
class Split:
    """One split in memory."""

    images: NDArray[np.uint8]
    features: NDArray[np.float32]
    records: list[Any]
    patients: NDArray[Any]
    sources: NDArray[Any]
    generic: NDArray[np.bool_]
    imagenet: NDArray[np.float32] | None = None
    """Features of an encoder that never saw a medical image; None where they were not asked for."""
    beats: NDArray[np.float32] | None = None
    """Features of the heartbeat of each ECG record (`heartbeat.py`), NaN in other rows; None where not asked for."""
    units: NDArray[np.intp] | None = None
    """Number of the file, or record, of each image; None where each image is one."""

    def with_imagenet(self, features: NDArray[np.float32]) -> Split:
        """Return the split with such features."""
        return replace(self, imagenet=features)

    def of_units(self, rows: NDArray[np.intp]) -> OfUnits:
        """Return how some rows become one each of a file or record, as `medclip score` answers for it."""
        units = rows if self.units is None else self.units[rows]
        return OfUnits(*np.unique(units, return_index=True, return_inverse=True)[1:])

    def unknown(self, rows: NDArray[np.intp]) -> tuple[str, ...]:
        """Return the sources of some rows of which nobody knows whose images they are."""
        return tuple(sorted(set(self.sources[rows].tolist()) - PATIENTS_KNOWN))


def load_split(shards: Path, name: str, model: Model, beats: Mapping[str, NDArray[np.float32]] | None = None) -> Split:
    """Read a split and encode it with the pack, as scoring does; what is no image (a bare record) is left out.

    Of chest films a quarter says in training which part of the body it shows; here all do, as all are asked.

    Args:
        shards: The shard folder.
        name: Name of the split.
        model: The pack.
        beats: Heartbeats of ECG records by their hash, where they are asked for.
    """
    reader = ShardReader(shards, name)
    samples = [sample for i in range(len(reader)) if (sample := reader[i]).image.size]
    images = np.stack([letterbox(s.image, model.preprocess.size_px) for s in samples])
    numbers: dict[tuple[str, str], int] = {}
    units = [numbers.setdefault((s.meta["sha256"], s.meta["adapter"]), len(numbers)) for s in samples]
    return Split(
        images,
        model.encode_image(images),
        [_of_the_thorax(s.record) if s.meta["source"] in CHEST_FILMS else s.record for s in samples],
        np.array([s.meta["patient"] for s in samples]),
        np.array([s.meta["source"] for s in samples]),
        np.array([s.meta["adapter"] == "generic" for s in samples]),
        units=np.array(units),
        beats=None if not beats else _beats_of([s.meta["sha256"] for s in samples], beats),
    )


def _of_the_thorax(record: CaptionRecord) -> CaptionRecord:
    return replace(record, labels={**record.labels, "body_region": "thorax"})


def _beats_of(shas: Sequence[str], beats: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the heartbeat of each row's record, NaN where it has none."""
    none = np.full(len(next(iter(beats.values()))), np.nan, np.float32)
    return np.stack([beats.get(sha, none) for sha in shas])


def tasks_of(data: Mapping[str, Split]) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Return what can be measured: tasks of one true class with their classes, and tasks of findings with theirs.

    A class needs images to learn from, images to calibrate with, and three test patients.
    """
    seen = {name: _patients_by_class(split) for name, split in data.items()}
    classes: dict[str, tuple[str, ...]] = {}
    findings: dict[str, tuple[str, ...]] = {}
    known = set(task_names())
    for task in sorted(name for name in seen["test"] if name in known):
        vocabulary = load_task(task)
        fewest = {"train": 1, "val": 1, "test": FEWEST}
        kept = tuple(
            c.name
            for c in vocabulary.classes
            if all(len(of.get(task, {}).get(c.name, ())) >= fewest.get(name, 0) for name, of in seen.items())
        )
        if vocabulary.kind == "multilabel" and kept:
            findings[task] = kept
        elif vocabulary.kind == "multiclass" and len(kept) > 1:
            classes[task] = kept
    return classes, findings


def _patients_by_class(split: Split) -> dict[str, dict[str, set[Any]]]:
    """Return the patients of each class of each task that labels name; of findings those that have it."""
    seen: dict[str, dict[str, set[Any]]] = defaultdict(lambda: defaultdict(set))
    for record, patient, generic in zip(split.records, split.patients, split.generic, strict=True):
        if generic:
            seen[MODALITY][str(record.modality)].add(patient)
            continue
        for task, label in record.labels.items():
            for name in [label] if isinstance(label, str) else [c for c, is_there in label.items() if is_there == 1]:
                seen[task][name].add(patient)
    return seen


def labelled(split: Split, task: str, classes: Sequence[str]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of a split that carry a multi-class label, and the class index of each."""
    rows, labels = [], []
    for i, record in enumerate(split.records):
        label = str(record.modality) if task == MODALITY else record.labels.get(task)
        if split.generic[i] == (task == MODALITY) and label in classes:
            rows.append(i)
            labels.append(list(classes).index(label))
    return np.array(rows, dtype=int), np.array(labels, dtype=int)


def labelled_finding(split: Split, task: str, name: str, judged: Judged) -> tuple[NDArray, NDArray]:
    """Rows of a split that say 0 or 1 for a finding, and what they say."""
    rows, labels = [], []
    for i, record in enumerate(split.records):
        findings = record.labels.get(task) or {}
        elsewhere = judged.source not in (None, split.sources[i])
        if split.generic[i] or elsewhere or (judged.among is not None and findings.get(judged.among) != 1):
            continue
        if findings.get(name) in (0, 1):
            rows.append(i)
            labels.append(int(findings[name]))
    return np.array(rows, dtype=int), np.array(labels, dtype=int)
