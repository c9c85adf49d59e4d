"""Parts of images that are blended into others, or filled from around them."""

from __future__ import annotations

import numpy as np

from medclip.imaging.blending import blended, filled


def test_a_blend_keeps_the_gradients_of_the_donor_and_the_values_around() -> None:
    target = np.full((20, 20, 3), 100, np.uint8)
    donor = np.full((20, 20, 3), 30, np.uint8)
    donor[9:11, 9:11] = 80
    mask = np.zeros((20, 20), bool)
    mask[6:14, 6:14] = True
    pasted = blended(donor, target, mask)
    assert pasted[9, 9].tolist() == [150, 150, 150], "the donor's contrast of 50 stands on the values around"
    assert (pasted[:3] == 100).all()


def test_a_part_is_filled_with_the_slope_around_it() -> None:
    slope = np.tile(np.arange(0, 200, 5, dtype=np.uint8), (40, 1))[..., None]
    marred, mask = slope.copy(), np.zeros((40, 40), bool)
    mask[12:20, 10:25] = True
    marred[mask] = 255
    assert np.abs(filled(marred, mask).astype(int) - slope).max() <= 1
