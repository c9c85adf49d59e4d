"""What each second of each lead of an ECG adds to a score: the record with that second as a flat line, scored again.

Towers of ECGs have tokens of all leads at once or of one lead each, or none; flattening a piece of the record asks all
of them the same question (Zeiler and Fergus, ECCV 2014).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medclip.explaining.target import Target
from medclip.imaging.ecg.recording import MISSING

Encoded = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]
"""What `features_without` returns."""


@dataclass(frozen=True, eq=False)
class RecordWork:
    """Records and one score: what a method of heat maps computes with."""

    model: Any
    records: Sequence[NDArray[np.int16]]
    visual: nn.Module | None
    """Another tower than the model's own."""
    target: Target
    encoded: Sequence[Encoded]
    """Of each record."""


def occlusion_maps(work: RecordWork) -> tuple[list[NDArray[np.float32]], str]:
    """Map records, [12, S], by how much the score falls without a second of a lead."""
    grids = []
    for vector_D, without_LSD, present_LS in work.encoded:
        grid = np.zeros(present_LS.shape, np.float32)
        falls = float(work.target.score(vector_D[None])[0]) - work.target.score(without_LSD[present_LS])
        grid[present_LS] = np.maximum(0.0, falls)
        grids.append(grid)
    return grids, "the record itself"


def seconds_of(record_LT: NDArray[np.int16], seconds: float) -> NDArray[np.intp]:
    """Return the number of the second that each sample belongs to, [T]; what is left over is part of the last ones."""
    samples = record_LT.shape[1]
    return np.arange(samples) * max(1, round(seconds)) // samples


def is_present(record_LT: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Return which leads of a record are there, [12]."""
    return (record_LT != MISSING).any(1)


def flat_lines(record_LT: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return the record with every lead at its mean throughout; missing ones stay missing."""
    means = np.round(record_LT.mean(1, keepdims=True)).astype(record_LT.dtype)
    return np.broadcast_to(means, record_LT.shape)


def flattened(record_LT: NDArray[np.int16], second_T: NDArray[np.intp]) -> Iterator[tuple[int, int, NDArray[np.int16]]]:
    """Yield lead, second, and the record in which that second of that lead is a flat line; leads that are there."""
    flat_LT = flat_lines(record_LT)
    for lead in np.flatnonzero(is_present(record_LT)):
        for second in range(int(second_T[-1]) + 1):
            changed = record_LT.copy()
            changed[lead, second_T == second] = flat_LT[lead, 0]
            yield int(lead), second, changed


def features_of(model: Any, records_NLT: NDArray[np.int16], visual: nn.Module | None) -> NDArray[np.float32]:
    """Return the vectors of records, float32 [N, D] of unit norm, by the model's tower or another in its place."""
    tower = model.clip.visual if visual is None else visual
    parts = []
    with torch.no_grad():
        for start in range(0, len(records_NLT), model.batch_size):
            features = tower(model.normalise(records_NLT[start : start + model.batch_size]))
            parts.append(nn.functional.normalize(features.float(), dim=-1).cpu().numpy())
    return np.concatenate(parts)


def features_without(
    model: Any, record_LT: NDArray[np.int16], seconds: float, visual: nn.Module | None = None
) -> Encoded:
    """Encode a record as it is, and without each second of each lead.

    Args:
        model: The loaded model, of ECGs.
        record_LT: Record in microvolts, int16 [12, T].
        seconds: Length of the record.
        visual: Another tower than the model's own.

    Returns:
        Its vector [D]; those without a second of a lead [12, S, D]; and which of these are there, bool [12, S].
    """
    second_T = seconds_of(record_LT, seconds)
    pieces = list(flattened(record_LT, second_T))
    vectors = features_of(model, np.stack([record_LT, *(changed for _, _, changed in pieces)]), visual)
    shape = len(record_LT), int(second_T[-1]) + 1
    without, present = np.zeros((*shape, vectors.shape[1]), np.float32), np.zeros(shape, np.bool_)
    for (lead, second, _), vector in zip(pieces, vectors[1:], strict=True):
        without[lead, second], present[lead, second] = vector, True
    return vectors[0], without, present
