"""The same images with and without their device: how much of the score was the device?

`mask_boxes` fills marked devices; the filled copies are scored like the originals, under the same keys. If
the score of a positive drops when only the drain is taken out, the drain was part of what the model saw. Filled images
without a device are the control: what changes there is the fill's doing.

The fill is no claim about what lies behind the device. For the control fill boxes of the same size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.checks.shortcuts.device import TIMES, not_done, row
from medclip.errors import MedclipError, Reason
from medclip.statistics.cohort import Cohort, Label
from medclip.statistics.estimate import Estimate
from medclip.statistics.resampling.bootstrap import evaluate
from medclip.statistics.resampling.intervals import estimates
from medclip.statistics.resampling.resampled import change
from medclip.statistics.resampling.standard_errors import clusters_of
from medclip.statistics.resampling.sums import means

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Row = dict[str, Any]

TEST = "device masked"
MEAN_CHANGE = "mean change of the score"
LOST = "share of found positives that are lost"
MIN_PATIENTS = 10
_STRATA = (
    ("positives with device", 1, 1),
    ("positives without device", 1, 0),
    ("negatives with device", 0, 1),
    ("negatives without device", 0, 0),
)


def align(cohort: Cohort, masked: Cohort, name: str) -> Floats:
    """Return the scores of the masked copies in the order of the originals.

    Returns:
        [N]; NaN where an original has no masked copy.

    Raises:
        MedclipError: TABLE_INVALID where the copies lack the label, or no key is in both.
    """
    label = next((candidate for candidate in masked.labels if candidate.name == name), None)
    if label is None:
        raise MedclipError(Reason.TABLE_INVALID, f"the masked copies have no scores of {name!r}.")
    if len(set(masked.keys)) < len(masked.keys) or len(set(cohort.keys)) < len(cohort.keys):
        raise MedclipError(
            Reason.WRONG_USE,
            "several rows of scores share one row of labels, so that originals and masked copies cannot be told apart.",
            hint="Give a table of labels with one row for each image.",
        )
    place = dict(zip(masked.keys, label.score_N.tolist(), strict=False))
    scores_N = np.array([place.get(key, np.nan) for key in cohort.keys], np.float64)
    if np.isnan(scores_N).all():
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"none of the {len(cohort.keys)} originals has a masked copy: no key is in both.",
            hint="Score the copies under the names of the originals, in another folder.",
        )
    return scores_N


def compare(
    cohort: Cohort,
    label: Label,
    masked_N: Floats,
    device_N: Floats,
    weights_PB: NDArray[Any],
    *,
    threshold: float | None = None,
    min_patients: int = MIN_PATIENTS,
) -> list[Row]:
    """Compare the scores of originals with those of their masked copies.

    Args:
        cohort: Patients of the originals.
        label: Scores of the originals, and truths.
        masked_N: Scores of the copies, NaN where there is none (`align`).
        device_N: Device in each row: 1 where the original shows it, 0 where not (then the fill is a control), NaN
            unknown.
        weights_PB: Weight of each patient in each replicate.
        threshold: Threshold for the share of positives found in the original that the copy loses; None: without it.
        min_patients: Fewest patients of a stratum that is shown.

    Returns:
        Rows of the table `shortcuts`: the mean change (copy − original) by truth and device, the share of positives
        lost at the threshold, and the change with the device minus that without it.
    """
    if label.time_N is not None:
        return not_done(label.name, TEST, TIMES)
    pair_N = label.valid_N & ~np.isnan(masked_N)
    strata = {n: pair_N & (label.truth_N == truth) & (device_N == device) for n, truth, device in _STRATA}
    parts = {n: part for n, part in strata.items() if _patients(cohort, part) >= min_patients}
    if not any("with device" in name for name in parts):
        return not_done(
            label.name, TEST, f"fewer than {min_patients} patients have a masked copy of an image with the device."
        )
    change_N = masked_N - label.score_N
    points, drawn = means(cohort.patients_N, weights_PB, [(part, change_N) for part in parts.values()], label.weight_N)
    point, draws = dict(zip(parts, points.tolist(), strict=True)), dict(zip(parts, drawn, strict=True))
    rows: list[Row] = []
    for name, part in parts.items():
        value = change(point[name], draws[name], _patients(cohort, part))
        rows.append(row(label.name, TEST, name, MEAN_CHANGE, value, _counts(label, part), _said(label, name, value)))
        if threshold is not None and name.startswith("positives"):
            rows += _lost(cohort, label, masked_N, part, weights_PB, threshold, name, min_patients)
    for kind in ("positives", "negatives"):
        pair = [f"{kind} with device", f"{kind} without device"]
        if not all(name in parts for name in pair):
            continue
        fewer = min(_patients(cohort, parts[name]) for name in pair)
        value = change(point[pair[0]] - point[pair[1]], draws[pair[0]] - draws[pair[1]], fewer)
        both = parts[pair[0]] | parts[pair[1]]
        note = (
            f"Change of the score with the device less that of the control, which is the fill's own doing: {value}. "
            + ("The device was part of what the model saw." if value.below_zero else _NOTHING)
        )
        rows.append(row(label.name, TEST, f"{kind}: with − without", MEAN_CHANGE, value, _counts(label, both), note))
    return rows


_NOTHING = "That the device was part of what the model saw is not shown."


def _said(label: Label, name: str, estimate: Estimate) -> str:
    if "without" in name:
        return f"Control: where a place without the device is filled, the score of {label.name} changes by {estimate}."
    if estimate.below_zero:
        return f"The score of {label.name} drops when the device is taken out of the image: {estimate}."
    if estimate.above_zero:
        return f"The score of {label.name} rises when the device is taken out of the image: {estimate}."
    return f"The score of {label.name} hardly changes when the device is taken out of the image: {estimate}."


def _lost(
    cohort: Cohort,
    label: Label,
    masked_N: Floats,
    part: Bools,
    weights_PB: NDArray[Any],
    threshold: float,
    name: str,
    min_patients: int,
) -> list[Row]:
    """Return the share of positives at or above the threshold whose copy is below it."""
    found_N = part & (label.score_N >= threshold)
    if _patients(cohort, found_N) < min_patients:
        why = f"Not done: fewer than {min_patients} patients have positives that are found at the threshold."
        return [row(label.name, TEST, name, LOST, Estimate(float("nan")), note=why)]
    lost = replace(label, truth_N=np.where(found_N, (masked_N < threshold).astype(np.float64), np.nan))
    ungrouped = replace(cohort, attributes=())
    shares = evaluate(ungrouped, lost, weights_PB, metrics=["prevalence"])
    share = estimates(shares, "prevalence", clusters_of(ungrouped, lost))[0]
    note = (
        f"Of the positives that are found at the threshold, {100 * share.value:.0f} % (95 % interval "
        f"{100 * share.low:.0f} to {100 * share.high:.0f} %) are no longer found when "
        + ("the device is taken out." if "with device" in name else "a place without the device is filled (control).")
    )
    return [row(label.name, TEST, name, LOST, share, _counts(label, found_N), note)]


def _patients(cohort: Cohort, part: Bools) -> int:
    return len(np.unique(cohort.patients_N[part]))


def _counts(label: Label, part: Bools) -> tuple[int, int]:
    return int(part.sum()), int(label.truth_N[part].sum())


Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are not inside."""


def mask_boxes(image: NDArray, boxes: Sequence[Box]) -> NDArray:
    """Fill boxes of an image from what lies around them: the border is continued inwards, without edge or bump.

    The fill is the harmonic function with the border's values.

    Args:
        image: Image [H, W] or [H, W, C], of any integer or float type.
        boxes: Left, top, right and bottom of each box; parts outside the image are ignored.

    Returns:
        A filled copy of the same type.

    Raises:
        MedclipError: WRONG_USE for an image of another shape, a box without an inside, or boxes that cover the image.
    """
    image = np.asarray(image)
    if image.ndim not in (2, 3) or image.dtype.kind not in "uif":
        raise MedclipError(Reason.WRONG_USE, f"an image is rows × columns (× channels), not {image.shape}.")
    mask = np.zeros(image.shape[:2], bool)
    for box in boxes:
        mask |= _inside(box, image.shape[0], image.shape[1])
    if mask.all():
        raise MedclipError(Reason.WRONG_USE, "the boxes cover the whole image; nothing is left to fill them from.")
    filled = image.astype(np.float64)
    filled[mask] = _harmonic(filled, mask)
    if image.dtype.kind != "f":
        filled = np.rint(filled)
    return filled.astype(image.dtype)


def _inside(box: Box, height: int, width: int) -> Bools:
    left, top, right, bottom = box
    mask = np.zeros((height, width), bool)
    mask[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    if not mask.any():
        raise MedclipError(
            Reason.WRONG_USE,
            f"the box {tuple(box)} has no inside in an image of {width} × {height} pixels.",
            hint="A box is left, top, right, bottom, in pixels.",
        )
    return mask


def _harmonic(image: NDArray[np.float64], mask: Bools) -> NDArray[np.float64]:
    """Solve Laplace's equation inside the mask: each pixel is the mean of its neighbours in the image."""
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import splu

    number = np.full(mask.shape, -1)
    number[mask] = np.arange(mask.sum())
    rows, columns = np.nonzero(mask)
    count = len(rows)
    degree, border = np.zeros(count), np.zeros((count, *image.shape[2:]))
    here, neighbours = [], []
    for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        r, c = rows + down, columns + right
        at = np.flatnonzero((r >= 0) & (r < mask.shape[0]) & (c >= 0) & (c < mask.shape[1]))
        degree[at] += 1
        r, c = r[at], c[at]
        open_ = mask[r, c]
        here.append(at[open_])
        neighbours.append(number[r[open_], c[open_]])
        border[at[~open_]] += image[r[~open_], c[~open_]]
    i = np.concatenate([np.arange(count), *here])
    j = np.concatenate([np.arange(count), *neighbours])
    value = np.concatenate([degree, -np.ones(len(i) - count)])
    return splu(coo_array((value, (i, j)), shape=(count, count)).tocsc()).solve(border)
