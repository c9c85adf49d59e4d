"""Letters that are burned into an image, or that a lead marker left on a film: light strokes that are letters in shape.

Thin light structures are what an opening takes away (white top-hat, three sizes). Each connected piece of them of a
letter's size is weighed by seven facts: how near its grey is to the lightest of the image, how even it and what lies
around it are, how long its stroke is, how much of its box it fills, how thick it is, how it stands out. The weights are
a logistic regression over 52,044 pieces of 300 images of three sets (brain_mri, cdd_cesm, the middle of films of
nih_cxr), each with and without a word drawn in DejaVu at 2.5 to 7 % of its shorter side. Half of the patients of these
sets took part. What was measured on others stands in the guide to rewriting (`docs/how-to/rewrite_captions.md`): white
letters that a program drew are seen, while 15 % of films with a lead marker pass. The pieces of that fit were cut by an
earlier form of this file: `benchmarks/burned_letters.py --fit` gives weights of the same kind and other values, and
measures what these see.

Dark letters, letters below six pixels, and grey ones of films whose bones are as light are not seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.geometry import Box

LEAST_SCORE = 1.0
"""Log odds from which on a piece counts as a letter: rather a letter too many than one that is not seen."""
_SIZES = (0.012, 0.03, 0.06)
"""Sides of the openings, as shares of the image's shorter side."""
_STEPS = (12, 30, 80)
"""Grey values by which a stroke is lighter than what lies around it."""
_NEARLY_LIGHTEST, _LIGHT_STEP = 0.86, 15
"""A white letter is cut out of grey bone by what share of the lightest grey it has."""
_LEAST_PX, _MOST = 6, 1 / 7
"""Height of a letter: in pixels, and as a share of the shorter side."""
_WIDEST, _FILL = 1.6, (0.15, 0.85)
"""Width of a letter for its height, and what share of its box it fills."""
_FRAME = 2
"""Pixels around a piece that are looked at."""


class _Weights(NamedTuple):
    constant: float = -13.01
    level: float = 13.1
    spread: float = -3.74
    around: float = -6.3
    length: float = 3.95
    fill: float = 1.76
    thickness: float = -3.37
    contrast: float = 0.85


_WEIGHTS = _Weights()


def letter_boxes(image: NDArray[np.uint8]) -> tuple[Box, ...]:
    """Look for letters.

    Args:
        image: uint8 [H, W, C] or [H, W].

    Returns:
        Boxes of pieces that are letters in shape, in pixels; one letter may have several.
    """
    boxes: dict[Box, bool] = {}
    for box, facts in pieces_of(image):
        boxes[box] = boxes.get(box, False) or _WEIGHTS.constant + float(np.dot(_WEIGHTS[1:], facts)) > LEAST_SCORE
    return tuple(box for box, is_letter in boxes.items() if is_letter)


def pieces_of(image: NDArray[np.uint8]) -> Iterator[tuple[Box, tuple[float, ...]]]:
    """Yield the box and the seven facts of each light piece of a letter's size, in the order of the weights; a box may
    come several times. `benchmarks/burned_letters.py` fits the weights to them.
    """
    from scipy import ndimage

    grey_HW = (image if image.ndim == 2 else image.max(axis=2)).astype(np.int16)
    short, lightest = min(grey_HW.shape), max(int(grey_HW.max()), 1)
    framed_HW = np.pad(grey_HW, _FRAME, "edge")
    for size in dict.fromkeys(max(5, round(short * share) | 1) for share in _SIZES):
        top_HW = grey_HW - ndimage.grey_opening(grey_HW, size=(size, size))
        cuts = [top_HW > step for step in _STEPS]
        cuts.append((top_HW > _LIGHT_STEP) & (grey_HW > _NEARLY_LIGHTEST * lightest))
        for cut_HW in cuts:
            number_HW = np.empty(grey_HW.shape, np.int32)
            ndimage.label(cut_HW, np.ones((3, 3)), output=number_HW)
            for number, place in enumerate(ndimage.find_objects(number_HW), 1):
                box = Box(place[0].start, place[1].start, place[0].stop, place[1].stop)
                tall, wide = box.height, box.width
                if not (_LEAST_PX <= tall <= short * _MOST and 2 <= wide <= _WIDEST * tall):
                    continue
                piece_HW = np.pad(number_HW[place] == number, _FRAME)
                if _FILL[0] <= piece_HW.sum() / (tall * wide) <= _FILL[1]:
                    part_HW = framed_HW[box.top : box.bottom + 2 * _FRAME, box.left : box.right + 2 * _FRAME]
                    yield box, _facts(piece_HW, part_HW, tall, wide, lightest)


def _facts(
    piece_HW: NDArray[np.bool_], grey_HW: NDArray[np.int16], tall: int, wide: int, lightest: int
) -> tuple[float, ...]:
    """Measure one piece and the pixels around it."""
    from scipy import ndimage

    depth_HW = np.asarray(ndimage.distance_transform_cdt(piece_HW, "taxicab"))
    thickness = 2 * int(depth_HW.max()) - 1
    near_HW = np.asarray(ndimage.binary_dilation(piece_HW), np.bool_)
    around = grey_HW[np.asarray(ndimage.binary_dilation(near_HW), np.bool_) & ~near_HW]
    inside, core = grey_HW[piece_HW], grey_HW[depth_HW >= 2]
    light = float(np.percentile(inside, 80))
    contrast = max(light - float(np.median(around)), 1.0)
    low, high = (20, 80) if len(core) > 4 else (50, 90)
    spread = np.subtract(*np.percentile(core if len(core) > 4 else inside, (high, low)))
    uneven = np.subtract(*np.percentile(around, (75, 25)))
    area = int(piece_HW.sum())
    return (
        light / lightest,
        min(spread / contrast, 1),
        min(uneven / contrast, 1),
        float(np.log(area / max(0.8 * thickness, 1) / tall)),
        area / (tall * wide),
        thickness / tall,
        float(np.log(contrast)),
    )
