"""Labelled images become scores: read and encoded as every run does, compared with the set's class vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medclip.errors import Problem
from medclip.models.class_vectors import ClassVectors, score_features
from medclip.runs.encode import UnitReader
from medclip.sample import Modality


@dataclass(frozen=True)
class _Image:
    path: Path
    modality: Modality


@dataclass(frozen=True, eq=False)
class Scored:
    """One image after the model."""

    sha256: str
    """Of its bytes; empty where they could not be read."""
    way: str = ""
    """How it was read: "xray", "ct:volume"."""
    scores_C: NDArray[np.float32] | None = None
    """Cosine with each class vector, mean over views; None exactly where there is a problem."""
    problem: Problem | None = None


def score_images(
    reader: UnitReader, paths: Sequence[Path], modality: Modality, vectors: ClassVectors, step: Callable[[int], None]
) -> list[Scored]:
    """Score many images.

    Args:
        reader: Reading processes, and the model to encode with.
        paths: Files, or folders of one series each.
        modality: Whose adapter reads them.
        vectors: The set's class vectors.
        step: Called with the number of images that were read since the last call.

    Returns:
        One entry for each path, in their order. What cannot be read carries its problem, and never stops the others.
    """
    units = reader.read([_Image(path, modality) for path in paths], step, keep_pixels=False)
    scored = []
    for unit in units:
        if unit.problem is not None:
            scored.append(Scored(unit.sha256, problem=unit.problem))
            continue
        cosines_VC, _ = score_features(unit.features, vectors, "multiclass", 1.0)
        scored.append(Scored(unit.sha256, unit.way, cosines_VC.mean(axis=0, dtype=np.float64).astype(np.float32)))
    return scored
