"""Arms compared on the same held-out patients: differences of the mean area, and backward transfer, with intervals.

The figure of a pack is the mean of its areas over the modalities. Patients are resampled within each modality, the same
ones for every pack, and each modality by a draw of its own, for its patients are others.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "mini"))

import numpy as np
from measured_split import Split, labelled, load_split
from measuring import plain
from modality_tables import MODALITIES
from numpy.typing import NDArray

from medclip.models.packs.pack import Model, load_model
from medclip.models.prototypes.class_vectors import class_vectors, score_features
from medclip.statistics.metrics import classification
from medclip.statistics.resampling.resampled import Resampled, difference, mean
from medclip.statistics.resampling.weights import draw_weights
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.task import Task

METRIC = "macro_auroc"
PAIRS: tuple[tuple[str, str], ...] = (
    ("joint", "soup"),
    ("joint", "greedy soup"),
    ("joint", "OPCM"),
    ("joint", "continued"),
    ("joint", "continued, VR-LwF"),
    ("soup", "OPCM"),
    ("continued", "continued, VR-LwF"),
    ("continued", "continued, text locked"),
    ("continued, text locked", "continued, text locked, VR-LwF"),
)
"""What is asked: the second of each less the first. All but the last two were written down before the first run."""
ONE_BY_ONE: tuple[str, ...] = (
    "OPCM",
    "continued",
    "continued, VR-LwF",
    "continued, text locked",
    "continued, text locked, VR-LwF",
)
"""Arms that learn or merge one modality after the other, and may lose what they knew."""


def areas_of(
    packs: Mapping[str, Path], run: Path, tasks: Mapping[str, str], num_resamples: int
) -> dict[str, dict[str, Resampled]]:
    """Measure packs on the test patients of each modality by its task; those that have no area are left out."""
    models = {name: load_model(pack) for name, pack in packs.items()}
    areas: dict[str, dict[str, Resampled]] = {name: {} for name in packs}
    for seed, (modality, task) in enumerate(tasks.items()):
        first = next(iter(models.values()))  # all packs take images of one size: they are read once
        split = load_split(run / "shards" / modality, "test", first)
        for name, model in models.items():
            own = split if model is first else replace(split, features=model.encode_image(split.images))
            area = _area(model, own, load_task(task), num_resamples, seed)
            areas[name] |= {} if area is None else {modality: area}
    return areas


def _area(model: Model, split: Split, task: Task, num_resamples: int, seed: int) -> Resampled | None:
    rows, targets = _labelled(split, task)
    if not len(rows):
        return None
    logits_NC = score_features(split.features[rows], class_vectors(model, task), task.kind, model.logit_scale)[0]
    scores_NC = classification.ranked_scores(logits_NC, task.kind == "multilabel")
    test = classification.HeldOut(targets, classification.numbered(split.patients[rows].tolist()), len(task.classes))
    weights_PB = draw_weights(test.num_patients, num_resamples, seed=seed)
    return classification.figures(scores_NC[None], test, weights_PB, [METRIC]).get(METRIC)


def _labelled(split: Split, task: Task) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Return the rows whose labels speak of a task, and their targets as `classification.HeldOut` takes them."""
    names = [c.name for c in task.classes]
    if task.kind != "multilabel":
        return labelled(split, task.name, names)
    said = {i: found for i, record in enumerate(split.records) if (found := record.labels.get(task.name))}
    targets_NC = [[found.get(name, np.nan) for name in names] for found in said.values()]
    return np.array(list(said), np.intp), np.array(targets_NC, np.float32)


def differences(areas: Mapping[str, Mapping[str, Resampled]]) -> dict[str, dict[str, Any]]:
    """Compare the arms.

    Args:
        areas: Of each arm, and of each `ARM up to MODALITY`, by modality.

    Returns:
        By "ARM less ARM" and "backward transfer of ARM": value, low and high; only what every modality has an area for.
    """
    compared = {
        f"{other} less {one}": difference(_mean(areas[one]), _mean(areas[other]))
        for one, other in PAIRS
        if all(len(areas.get(arm, {})) == len(MODALITIES) for arm in (one, other))
    }
    then = {arm: _when_learned(areas, arm) for arm in ONE_BY_ONE}
    for arm, learned in then.items():
        if len(learned) == len(MODALITIES) - 1 and set(learned) <= set(areas[arm]):
            now = {modality: areas[arm][modality] for modality in learned}
            compared[f"backward transfer of {arm}"] = difference(_mean(learned), _mean(now))
    return {name: plain(one) for name, one in compared.items()}


def _when_learned(areas: Mapping[str, Mapping[str, Resampled]], arm: str) -> dict[str, Resampled]:
    """Return the area of each modality, but the last, in the pack that had just learned or merged it."""
    packs = {modality: areas.get(f"{arm} up to {modality}", {}) for modality in MODALITIES[:-1]}
    return {modality: of[modality] for modality, of in packs.items() if modality in of}


def _mean(areas: Mapping[str, Resampled]) -> Resampled:
    return mean(list(areas.values()))


def table_of(compared: Mapping[str, Mapping[str, float]]) -> str:
    """Write the differences, one a line."""
    lines = [f"| {name} | {_signed(one)} |" for name, one in compared.items()]
    return "\n".join(["| mean area | difference, 95 % interval |", "|---|---|", *lines]) + "\n"


def _signed(one: Mapping[str, float]) -> str:
    value, low, high = (f"{one[part]:+.3f}".replace("-", "−") for part in ("value", "low", "high"))
    return value if math.isnan(one["low"]) else f"{value} ({low} to {high})"
