"""How near a mask comes to the true one: overlap, distance of outlines, and lesions one by one.

Nothing of a true mask that is empty can be overlapped, so that such an image has no Dice (as of MONAI's `DiceMetric`):
means are over images with a structure, and whether anything is marked in the others is a figure of its own. A Dice of 1
for every empty image that is left empty would be the share of empty images, whatever the outlines are.

Reference: Maier-Hein et al., Metrics reloaded, Nat. Methods 21 (2024) 195-212 (empty masks; distances beside overlap).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.statistics.estimate import Estimate
from medclip.statistics.resampling.resampled import Resampled, bounded, change, interval_of, share
from medclip.statistics.resampling.standard_errors import effective_patients
from medclip.statistics.resampling.sums import means

_PERCENTILE = 0.95
_THRESHOLDS = np.linspace(0.05, 0.95, 19)
_FOLDS = 10
TITLES: Mapping[str, str] = {
    "dice": "Dice",
    "iou": "IoU",
    "hd95_mm": "HD95 (mm)",
    "hd95_px": "HD95 (px)",
    "lesion_sensitivity": "lesions hit",
    "nothing_marked": "images with nothing marked",
    "false_alarms": "images with a wrong piece",
    "empty_marked": "empty images with anything marked",
}
"""Figures of masks, in the order of tables. The last is of images whose true mask is empty, all others of the rest."""
OVERLAPS, DISTANCES = ("dice", "iou"), ("hd95_mm", "hd95_px")
"""Those that are no shares of answers."""


def dice_and_iou(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> tuple[float, float]:
    """Return Dice and intersection over union of two masks; NaN where nothing is true.

    Example:
        >>> dice_and_iou(np.array([True, True, False]), np.array([True, False, False]))
        (0.6666666666666666, 0.5)
    """
    both, either = int((predicted & truth).sum()), int((predicted | truth).sum())
    return (2 * both / (both + either), both / either) if truth.any() else (float("nan"), float("nan"))


def surface_distance(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: tuple[float, float] = (1.0, 1.0)
) -> float:
    """Return the 95th percentile of the distances between two outlines, the larger of both directions (HD95).

    It is what MONAI's `compute_hausdorff_distance(percentile=95)` returns; that needs torch, which reading processes do
    not import.

    Args:
        predicted: Mask, bool [H, W].
        truth: True mask, bool [H, W].
        spacing: Distances of rows and columns, in the unit of the answer.

    Returns:
        NaN where one of them is empty.

    Example:
        >>> one, other = np.zeros((5, 9), np.bool_), np.zeros((5, 9), np.bool_)
        >>> one[2, 1] = other[2, 5] = True
        >>> surface_distance(one, other, (1.0, 0.5))
        2.0
    """
    from scipy import ndimage
    from scipy.spatial import KDTree

    if not (predicted.any() and truth.any()):
        return float("nan")
    both = (predicted, truth)
    outlines = [np.argwhere(mask & ~np.asarray(ndimage.binary_erosion(mask), np.bool_)) * spacing for mask in both]
    ways = ((outlines[0], outlines[1]), (outlines[1], outlines[0]))
    return max(float(np.quantile(KDTree(to).query(here)[0], _PERCENTILE)) for here, to in ways)


def lesion_counts(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Count lesions one by one: pieces of a mask whose pixels touch, by sides or corners.

    Returns:
        True lesions of which at least a pixel is predicted; true lesions; and predicted pieces that touch no true one.

    Example:
        >>> predicted, truth = np.zeros((5, 5), np.bool_), np.zeros((5, 5), np.bool_)
        >>> truth[0, :2] = truth[4, 4] = predicted[0, 1] = predicted[2, 2] = True
        >>> lesion_counts(predicted, truth)
        (1, 2, 1)
    """
    from scipy import ndimage

    touching = np.ones((3, 3), np.bool_)
    pieces: list[Any] = [ndimage.label(mask, touching) for mask in (predicted, truth)]
    (predicted_HW, num_predicted), (truth_HW, num_true) = pieces
    hit = len(np.unique(truth_HW[predicted & truth]))
    right = len(np.unique(predicted_HW[predicted & truth]))
    return hit, int(num_true), int(num_predicted) - right


def mask_figures(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], spacing_mm: tuple[float, float] | None = None
) -> dict[str, float]:
    """Return every figure of one image by its name in `TITLES`; NaN for one that it does not have.

    Args:
        predicted: Mask, bool [H, W].
        truth: True mask, bool [H, W].
        spacing_mm: Distances of rows and columns; None where it is not known, and distances are in pixels.
    """
    has_truth, is_marked = bool(truth.any()), bool(predicted.any())
    dice, iou = dice_and_iou(predicted, truth)
    hit, lesions, wrong = lesion_counts(predicted, truth)
    figures = dict.fromkeys(TITLES, float("nan"))
    if not has_truth:
        return figures | {"empty_marked": float(is_marked)}
    distance = surface_distance(predicted, truth, spacing_mm or (1.0, 1.0))
    figures |= {"dice": dice, "iou": iou, "hd95_px" if spacing_mm is None else "hd95_mm": distance}
    return figures | {
        "lesion_sensitivity": hit / lesions,
        "nothing_marked": float(not is_marked),
        "false_alarms": float(wrong > 0),
    }


def mask_mean(
    metric: str, values_N: NDArray[np.float64], patients_N: NDArray[np.integer], weights_PB: NDArray[Any]
) -> Resampled:
    """Average a figure over the images that have it, with what its interval is made of.

    Args:
        metric: Name of the figure, of `TITLES`.
        values_N: The figure of each image; NaN where it has none, but not in all of them.
        patients_N: Patient of each image.
        weights_PB: Weight of each patient in each resample.
    """
    counted_N = ~np.isnan(values_N)
    point_1, drawn_1B = means(patients_N, weights_PB, [(counted_N, values_N)])
    value, drawn_B, patients = float(point_1[0]), drawn_1B[0], effective_patients(patients_N[counted_N])
    if metric in (*OVERLAPS, *DISTANCES):
        return bounded(value, drawn_B, patients=patients)
    return share(value, drawn_B, cases=float(counted_N.sum()), patients=patients)


def mask_estimate(metric: str, figure: Resampled) -> Estimate:
    """Compute the interval of a figure of `mask_mean`; of a mean distance from that of its logarithm."""
    if metric not in DISTANCES:
        return interval_of(figure)
    if not figure.value > 0:
        return Estimate(figure.value)
    log = change(float(np.log(figure.value)), np.log(np.maximum(figure.drawn_B, 1e-9)), figure.df + 1)
    return Estimate(figure.value, float(np.exp(log.low)), float(np.exp(log.high)))


def position_dices(shares_NG: NDArray[np.floating], patients_N: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the Dice of each image's true mask with what the masks of other patients alone say: it sees no image.

    Patients are divided into ten parts. The mean of the masks of nine, cut where its mean Dice with them is best, is
    the answer for the tenth.

    Args:
        shares_NG: Share of each cell of one grid over the image that each true mask covers, which has a pixel.
        patients_N: Patient of each image, from 0.

    Returns:
        [N]; NaN where there is no other patient.
    """
    out_N, areas_N = np.full(len(shares_NG), np.nan), shares_NG.sum(axis=1)
    part_N = np.unique(patients_N, return_inverse=True)[1] % _FOLDS
    for part in np.unique(part_N):
        others_N = part_N != part
        if not others_N.any():
            continue
        said_TG = shares_NG[others_N].mean(axis=0) > _THRESHOLDS[:, None]
        areas_TN = said_TG.sum(axis=1)[:, None] + areas_N
        dices_TN = 2 * (said_TG @ shares_NG.T.astype(np.float64)) / areas_TN
        out_N[~others_N] = dices_TN[int(np.argmax(dices_TN[:, others_N].mean(axis=1))), ~others_N]
    return out_N
