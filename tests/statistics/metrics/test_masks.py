"""Overlap and lesions of masks, held against MONAI and against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medclip.statistics.metrics.masks import dice_and_iou, lesion_counts

MASKS = arrays(np.bool_, (6, 7))


@given(MASKS, MASKS)
def test_dice_and_iou_are_those_of_monai_where_anything_is_marked(predicted: np.ndarray, truth: np.ndarray) -> None:
    from monai.metrics.meandice import compute_dice
    from monai.metrics.meaniou import compute_iou

    both = [torch.from_numpy(mask)[None, None].float() for mask in (predicted, truth)]
    dice, iou = dice_and_iou(predicted, truth)
    if truth.any():  # MONAI has no figure without a true pixel
        assert dice == pytest.approx(float(compute_dice(*both)), abs=1e-6)
        assert iou == pytest.approx(float(compute_iou(*both)), abs=1e-6)
    assert dice == pytest.approx(2 * iou / (1 + iou))


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
    assert dice_and_iou(other, other) == (1.0, 1.0)
    assert lesion_counts(other, other)[1] == lesion_counts(mask, mask)[1]
    assert lesion_counts(other, other)[2] == 0
