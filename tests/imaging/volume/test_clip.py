from __future__ import annotations

import numpy as np
import pytest

from medclip.imaging.volume.resample import resample
from medclip.imaging.volume.voxels import Part, Voxels, cut_clip
from medclip.sample import Kind, Volume
from tests.kits.volume_models import ct, loop


def _part(middle: tuple[float, float, float], shape: tuple[int, int, int], step: float = 1.0) -> Part:
    return Part(middle, (step, step, step), shape)


def test_a_part_on_the_volumes_own_grid_is_its_voxels() -> None:
    values = np.random.default_rng(0).integers(0, 255, (12, 20, 30)).astype(np.int16)
    voxels = Voxels(values, Kind.VOLUME, "HU", "axial", (1.0, 1.0, 1.0))
    clip = cut_clip(voxels, _part((5.5, 7.5, 11.5), (6, 8, 10)), (0, 255))
    np.testing.assert_array_equal(clip[..., 0], values[3:9, 4:12, 7:17])


def test_what_lies_outside_the_volume_is_black_on_the_side_where_it_lies() -> None:
    voxels = ct(values=np.full((4, 8, 8), 300, np.int16))
    clip = cut_clip(voxels, _part((-0.5, 3.5, 3.5), (8, 8, 8)), (-200, 300))[..., 0]
    assert (clip[:4] == 0).all()
    assert (clip[4:] == 255).all()
    apart = cut_clip(voxels, _part((500.0, 3.5, 3.5), (8, 8, 8)), (-200, 300))
    assert apart.shape == (8, 8, 8, 1)
    assert not apart.any()


def test_a_whole_volume_is_resampled_as_the_function_for_volumes_does() -> None:
    voxels = ct()
    whole = resample(Volume(voxels.values, np.diag([2.0, 0.8, 0.5, 1]), "HU", "axial"), (4.0, 2.0, 2.0)).voxels
    shape = whole.shape
    middle = tuple((size - 1) / 2 for size in voxels.values.shape)
    clip = cut_clip(voxels, Part(middle, (2.0, 2.5, 4.0), shape), (-1000, 1000))[..., 0]  # type: ignore[arg-type]
    expected = np.clip((whole + 1000) / 2000 * 255, 0, 255)
    assert np.abs(clip.astype(float) - expected).max() <= 0.51


@pytest.mark.parametrize("middle", [(2.0, 9.0, 14.0), (9.5, 31.0, 50.5)])
def test_only_a_slab_is_read_and_the_result_is_that_of_the_whole(middle: tuple[float, float, float]) -> None:
    voxels = ct()
    part = Part(middle, (1.3, 2.1, 2.4), (4, 10, 10))
    padded = np.pad(voxels.values, ((3, 3),) * 3, mode="edge")  # beyond an edge its value repeats: nothing may change
    moved = Part(tuple(m + 3 for m in middle), part.step, part.shape)  # type: ignore[arg-type]
    inside = cut_clip(voxels, part, (-1000, 1000))
    shown = inside > 0
    np.testing.assert_array_equal(inside[shown], cut_clip(ct(values=padded), moved, (-1000, 1000))[shown])


def test_frames_are_never_blended_and_a_short_loop_begins_again() -> None:
    voxels = loop(6)
    clip = cut_clip(voxels, Part((2.5, 19.5, 23.5), (0.5, 1.0, 1.0), (12, 40, 48)), (0, 255))
    frames = {frame.tobytes() for frame in voxels.values}
    assert all(frame.tobytes() in frames for frame in clip)
    again = cut_clip(voxels, Part((5.5, 19.5, 23.5), (1.0, 1.0, 1.0), (12, 40, 48)), (0, 255))
    np.testing.assert_array_equal(again[:6], voxels.values)
    np.testing.assert_array_equal(again[6:], voxels.values)
