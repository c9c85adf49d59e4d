"""Overlap and lesions of masks, held against MONAI and against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medclip.statistics.metrics.masks import (
    TITLES,
    dice_and_iou,
    lesion_counts,
    mask_estimate,
    mask_figures,
    mask_mean,
    position_dices,
    surface_distance,
)
from medclip.statistics.resampling.weights import draw_weights

MASKS = arrays(np.bool_, (6, 7))
SPACINGS = st.sampled_from([(1.0, 1.0), (0.5, 0.25), (0.3, 2.0)])


@given(MASKS, MASKS)
def test_dice_and_iou_are_those_of_monai_which_has_none_of_an_empty_mask(
    predicted: np.ndarray, truth: np.ndarray
) -> None:
    from monai.metrics.meandice import DiceMetric, compute_dice
    from monai.metrics.meaniou import compute_iou

    both = [torch.from_numpy(mask)[None, None].float() for mask in (predicted, truth)]
    dice, iou = dice_and_iou(predicted, truth)
    metric = DiceMetric(include_background=True, reduction="none")
    assert [dice] * 2 == pytest.approx([float(compute_dice(*both)), float(metric(*both))], abs=1e-6, nan_ok=True)
    assert iou == pytest.approx(float(compute_iou(*both)), abs=1e-6, nan_ok=True)
    assert dice == pytest.approx(2 * iou / (1 + iou), nan_ok=True)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy.*:FutureWarning")  # MONAI's own argument
@given(MASKS, MASKS, SPACINGS)
def test_the_distance_of_outlines_is_that_of_monai(
    predicted: np.ndarray, truth: np.ndarray, spacing: tuple[float, float]
) -> None:
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    distance = surface_distance(predicted, truth, spacing)
    assert np.isnan(distance) == (not (predicted.any() and truth.any()))
    if not np.isnan(distance):
        both = [torch.from_numpy(mask)[None, None] for mask in (predicted, truth)]
        theirs = compute_hausdorff_distance(*both, include_background=True, percentile=95, spacing=list(spacing))
        assert distance == pytest.approx(float(theirs), rel=1e-5, abs=1e-5)
        assert distance == surface_distance(truth, predicted, spacing)


@given(MASKS, MASKS)
def test_an_image_has_the_figures_of_its_kind(predicted: np.ndarray, truth: np.ndarray) -> None:
    figures = mask_figures(predicted, truth)
    assert list(figures) == list(TITLES)
    known = {name for name, value in figures.items() if not np.isnan(value)}
    overlap = {"dice", "iou", "lesion_sensitivity", "nothing_marked", "false_alarms"}
    assert known - {"hd95_px"} == (overlap if truth.any() else {"empty_marked"})
    assert ("hd95_px" in known) == (truth.any() and predicted.any())
    assert np.isnan(mask_figures(predicted, truth, (1.0, 1.0))["hd95_px"])


def test_the_interval_of_a_distance_is_above_nought_and_holds_its_mean() -> None:
    distances = np.random.default_rng(0).exponential(10, 40)
    figure = mask_mean("hd95_mm", distances, np.arange(40), draw_weights(40, 400, seed=0))
    estimate = mask_estimate("hd95_mm", figure)
    assert estimate.value == pytest.approx(distances.mean())
    assert 0 < estimate.low < estimate.value < estimate.high
    assert (
        mask_estimate("hd95_px", mask_mean("hd95_px", np.zeros(4), np.arange(4), draw_weights(4, 9, seed=0))).value == 0
    )


def test_position_never_sees_the_masks_of_its_own_patient() -> None:
    here, there = np.zeros((2, 16))
    here[:4], there[8:] = 1, 1
    shares = np.stack([here] * 6 + [there] * 2)
    dices = position_dices(shares, np.array([0, 1, 2, 3, 4, 5, 6, 6]))
    assert dices.tolist() == [1.0] * 6 + [0.0] * 2
    assert np.isnan(position_dices(shares[:2], np.zeros(2, np.int64))).all()


def test_position_on_a_grid_is_position_in_the_pixels_of_the_image() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((6, 8, 8)) < 0.4
    fine = masks.repeat(4, axis=1).repeat(3, axis=2)
    patients = np.arange(6)
    one, other = (position_dices(m.reshape(6, -1).astype(np.float32), patients) for m in (masks, fine))
    assert one == pytest.approx(other)


def flood(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """Return the pieces of a mask as sets of pixels, by walking from pixel to pixel."""
    left, pieces = {(int(y), int(x)) for y, x in np.argwhere(mask)}, []
    while left:
        piece, waiting = set(), [left.pop()]
        while waiting:
            y, x = waiting.pop()
            piece.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            waiting += near
        pieces.append(piece)
    return pieces


@given(MASKS, MASKS)
def test_lesions_are_hit_missed_and_made_up_as_by_walking_over_pixels(predicted: np.ndarray, truth: np.ndarray) -> None:
    said, true = flood(predicted), flood(truth)
    hit = sum(any(one & other for other in said) for one in true)
    wrong = sum(not any(one & other for other in true) for one in said)
    assert lesion_counts(predicted, truth) == (hit, len(true), wrong)


@given(MASKS, st.sampled_from([np.flipud, np.fliplr, np.transpose]))
def test_a_mask_is_itself_however_it_is_turned(mask: np.ndarray, turned: object) -> None:
    other = turned(mask)  # type: ignore[operator]
    assert dice_and_iou(other, other) == pytest.approx((1.0, 1.0) if mask.any() else (np.nan, np.nan), nan_ok=True)
    assert lesion_counts(other, other)[1] == lesion_counts(mask, mask)[1]
    assert lesion_counts(other, other)[2] == 0
