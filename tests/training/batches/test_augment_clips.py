from __future__ import annotations

from dataclasses import replace

import numpy as np

from medclip.training.batches.augment_clips import draw_clip_change, make_clip
from medclip.training.recipe.sections.augment import Augment
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
