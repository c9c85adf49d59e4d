from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medclip.training.batches.augment import draw_clip_change, make_clip
from medclip.training.recipe.augment import Augment
from tests.kits.volume_models import SIZE_PX, ct, ct_input

STILL = Augment(crop_scale=(1, 1), rotate_deg=0, brightness=0, contrast=0)
TAKEN = ct_input()


def _change(settings: Augment, seed: int = 0, *, may_flip: bool = True):
    return draw_clip_change(settings, np.random.default_rng(seed), may_flip=may_flip)


def test_a_change_is_plain_data_and_gives_the_same_clip_each_time() -> None:
    change = _change(Augment(rotate_deg=0))
    assert change == _change(Augment(rotate_deg=0))
    first, second = (make_clip(ct(), change, TAKEN, SIZE_PX) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (8, SIZE_PX, SIZE_PX, 1)


def test_without_a_change_it_is_the_middle_one_of_the_clips_that_are_scored() -> None:
    clips = TAKEN.clips(ct(), SIZE_PX)
    np.testing.assert_array_equal(make_clip(ct(), None, TAKEN, SIZE_PX), clips[len(clips) // 2])


def test_clips_lie_anywhere_along_the_slices_and_only_there_where_nothing_else_changes() -> None:
    values = np.broadcast_to(np.arange(40, dtype=np.int16)[:, None, None] * 10, (40, 32, 32))
    voxels = ct(values=values, spacing_mm=(2.0, 2.0, 2.0))
    starts = {make_clip(voxels, replace_at(n), TAKEN, SIZE_PX)[0, 16, 16, 0] for n in (0.0, 0.5, 1.0)}
    assert len(starts) == 3
    np.testing.assert_array_equal(make_clip(voxels, replace_at(0.0), TAKEN, SIZE_PX), TAKEN.clips(voxels, SIZE_PX)[0])


def replace_at(at: float):
    change = _change(STILL)
    return change._replace(within=replace(change.within, shift=(0.0, 0.0)), at=at)


def test_zoom_shows_less_at_a_finer_grid_and_a_flip_mirrors_left_and_right() -> None:
    whole, change = make_clip(ct(), replace_at(0.5), TAKEN, SIZE_PX), replace_at(0.5)
    near = make_clip(ct(), change._replace(within=replace(change.within, zoom=0.5)), TAKEN, SIZE_PX)
    assert (near > 0).mean() > 2 * (whole > 0).mean()
    flipped = make_clip(ct(), change._replace(within=replace(change.within, flip=True)), TAKEN, SIZE_PX)
    np.testing.assert_array_equal(flipped, whole[:, :, ::-1])


def test_black_stays_black_where_grey_values_change() -> None:
    change = replace_at(0.5)
    bright = make_clip(ct(), change._replace(within=replace(change.within, gain=1.2)), TAKEN, SIZE_PX)
    whole = make_clip(ct(), change, TAKEN, SIZE_PX)
    assert not bright[whole == 0].any()
    assert bright.sum() > whole.sum()


def test_where_a_side_is_named_nothing_is_mirrored() -> None:
    always = STILL.model_copy(update={"flip": 1.0})
    assert _change(always).within.flip
    assert not _change(always, may_flip=False).within.flip


def test_where_along_the_slices_is_drawn_evenly() -> None:
    places = [_change(STILL, seed).at for seed in range(60)]
    assert min(places) < 0.15
    assert max(places) > 0.85
    assert 0.35 < np.mean(places) < 0.65


def test_a_shift_goes_across_and_then_down_and_a_part_is_as_wide_as_for_images() -> None:
    rows, columns = np.indices((40, 40))
    down, across = (ct(values=np.array([n] * 8, np.int16) * 10 - 200, spacing_mm=(2.0,) * 3) for n in (rows, columns))

    def middles(**within: object) -> tuple[float, float]:
        change = replace_at(0.5)
        change = change._replace(within=replace(change.within, **within))  # type: ignore[arg-type]
        clips = [make_clip(v, change, TAKEN, SIZE_PX).astype(float) for v in (down, across)]
        return clips[0][0, 15:17].mean(), clips[1][0, :, 15:17].mean()

    still = middles()
    assert middles(shift=(1.0, 0.0)) == (still[0], pytest.approx(still[1] + 4 * 10 / 500 * 255, abs=1))
    assert middles(shift=(0.0, 1.0)) == (pytest.approx(still[0] + 4 * 10 / 500 * 255, abs=1), still[1])
    wide = replace_at(0.5)  # half of the area, twice as wide as high
    wide = wide._replace(within=replace(wide.within, parts=((0.5, 2.0),)))
    high, broad = (np.ptp(make_clip(v, wide, TAKEN, SIZE_PX)[0].astype(float)) for v in (down, across))
    assert broad == pytest.approx(2 * high, rel=0.1)
