"""What an image is known again by fits into 2.5 kB, and comes back from there."""

from __future__ import annotations

import numpy as np

from medclip.imaging.perceptual_hash import SMALL_PX, VARIANTS, from_bytes, look_of, look_of_views
from tests.kits.leakage import film


def test_a_look_comes_back_from_its_bytes() -> None:
    look = look_of_views(np.stack([film(seed, 64, 64)[:, :, None] for seed in range(3)]))
    again = from_bytes(look.to_bytes())
    assert np.array_equal(again.words_VW, look.words_VW)
    assert look.small_HW is not None
    assert again.words_VW.dtype == np.uint64
    assert again.small_HW is not None
    assert np.array_equal(again.small_HW, look.small_HW)


def test_the_middle_view_is_looked_at() -> None:
    views = np.stack([film(seed, 64, 64)[:, :, None] for seed in range(3)])
    assert np.array_equal(look_of_views(views).words_VW, look_of(views[1]).words_VW)


def test_one_variant_without_a_small_image_is_enough_to_compare_with() -> None:
    look = look_of(film(1), 1, small=False)
    assert look.small_HW is None
    assert np.array_equal(look.words_VW, look_of(film(1)).words_VW[:1])
    assert look_of(film(1)).words_VW.shape[0] == len(VARIANTS)
    assert look_of(film(1)).small_HW.shape == (SMALL_PX, SMALL_PX)  # type: ignore[union-attr]
