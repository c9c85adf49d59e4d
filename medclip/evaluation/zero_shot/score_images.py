"""Labelled images become scores: read in processes of their own through the set's adapter, encoded, compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Problem, Reason
from medclip.files.readers.pool import ReadingPool
from medclip.models.class_vectors import ClassVectors, score_features
from medclip.models.unit_pixels import Pixels, read_pixels

if TYPE_CHECKING:
    from medclip.sample import Modality
    from medclip.settings import Settings

_READ_AHEAD = 64
"""Images asked for and not yet taken: enough that the processes never wait for the model."""


@dataclass(frozen=True, eq=False)
class Scored:
    """One image after the model."""

    sha256: str
    """Of its bytes; empty where they could not be read."""
    way: str = ""
    scores_C: NDArray[np.float32] | None = None
    """Cosine with each class vector, mean over views; None exactly where there is a problem."""
    problem: Problem | None = None


def score_images(
    model: Any,
    paths: Sequence[Path],
    modality: Modality,
    vectors: ClassVectors,
    pool: ReadingPool,
    settings: Settings,
    *,
    batch_size: int,
    step: Callable[[int], None],
) -> list[Scored]:
    """Score many images; results are in the order of the paths.

    Args:
        model: A loaded model.
        paths: Files, or folders of one series each.
        modality: Whose adapter reads them.
        vectors: The set's class vectors.
        pool: Reading processes.
        settings: Limits and policy.
        batch_size: Images in one forward pass.
        step: Called with the number of images that were read since the last call.

    Returns:
        One entry for each path. What cannot be read carries its problem, and never stops the others.
    """
    results: list[Scored | None] = [None] * len(paths)
    owners: list[int] = []
    images: list[NDArray[np.uint8]] = []
    read: dict[int, Pixels] = {}
    views: dict[int, list[NDArray[np.float32]]] = {}

    def encode(count: int) -> None:
        batch = np.stack(images[:count])
        cosines, _ = score_features(model.encode_image(batch, batch_size=batch_size), vectors, "multiclass", 1.0)
        for owner, row in zip(owners[:count], cosines, strict=True):
            views.setdefault(owner, []).append(row)
        del owners[:count], images[:count]

    jobs = ((path, modality, model.preprocess, settings) for path in paths)
    for number, future in enumerate(pool.map(read_pixels, jobs, ahead=max(_READ_AHEAD, 2 * batch_size))):
        try:
            found = future.result()
        except MedclipError as error:  # the process died or took too long
            found = Pixels("", problem=error.problem())
        if found.views_VHWC is None:
            results[number] = Scored(found.sha256, problem=found.problem)
        else:
            owners += [number] * len(found.views_VHWC)
            images += list(found.views_VHWC)
            read[number] = Pixels(found.sha256, way=found.way)
        while len(images) >= batch_size:
            encode(batch_size)
        step(1)
    if images:
        encode(len(images))
    for number, pixels in read.items():
        results[number] = _scored(pixels, np.stack(views[number]).mean(axis=0, dtype=np.float64).astype(np.float32))
    return [result for result in results if result is not None]


def _scored(pixels: Pixels, scores_C: NDArray[np.float32]) -> Scored:
    if np.isfinite(scores_C).all():
        return Scored(pixels.sha256, pixels.way, scores_C)
    problem = Problem(Reason.NON_FINITE, "The model's features of this image are not finite numbers.")
    return Scored(pixels.sha256, pixels.way, problem=problem)
