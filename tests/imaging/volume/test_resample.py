from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from medclip.errors import MedclipError
from medclip.imaging.volume.resample import resample, slice_indices, square_pixels
from medclip.sample import Volume

AFFINE = np.array([[0, 0.1, -0.7, 50], [0.2, -0.7, 0, 60], [2.0, 0, 0, -40], [0, 0, 0, 1.0]])


def _volume(voxels: np.ndarray, unit: str = "relative") -> Volume:
    return Volume(voxels, AFFINE, unit, "axial")


def _smooth(shape: tuple[int, ...] = (12, 30, 26)) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _world(volume: Volume) -> np.ndarray:
    index = np.indices(volume.voxels.shape[-3:]).reshape(3, -1)
    return volume.affine[:3, :3] @ index + volume.affine[:3, 3:]


def test_a_finer_grid_is_linear_interpolation_at_the_places_its_affine_names() -> None:
    volume = _volume(_smooth())
    fine = resample(volume, (1.0, 0.5, 0.5))
    np.testing.assert_allclose(fine.spacing_mm, (1.0, 0.5, 0.5))
    back = np.linalg.solve(volume.affine[:3, :3], _world(fine) - volume.affine[:3, 3:])
    expected = map_coordinates(volume.voxels, back, order=1, mode="nearest")
    np.testing.assert_allclose(fine.voxels.ravel(), expected, atol=1e-5)


def test_a_coarser_grid_averages_and_keeps_the_centre() -> None:
    volume = _volume(_smooth())
    coarse = resample(volume, (4.0, 2.0, 2.0))
    np.testing.assert_allclose(coarse.spacing_mm, (4.0, 2.0, 2.0))
    np.testing.assert_allclose(_world(coarse).mean(axis=1), _world(volume).mean(axis=1), atol=1e-9)
    assert coarse.voxels.std() < 0.5 * volume.voxels.std()  # noise goes down: every voxel takes part
    constant = resample(_volume(np.full((5, 6, 7), 9, np.int16)), (3.1, 0.4, 1.9))
    np.testing.assert_allclose(constant.voxels, 9, rtol=1e-6)


def test_the_same_spacing_changes_nothing_and_frames_are_kept_apart() -> None:
    volume = _volume(_smooth((2, 5, 8, 9)))
    np.testing.assert_array_equal(resample(volume, volume.spacing_mm).voxels, volume.voxels)
    both = resample(volume, (1.5, 1.0, 1.0)).voxels
    np.testing.assert_array_equal(both[1], resample(_volume(volume.voxels[1]), (1.5, 1.0, 1.0)).voxels)


@pytest.mark.parametrize("spacing", [(0, 1, 1), (1, 1), (np.nan, 1, 1), (0.01, 0.01, 0.01)])
def test_a_senseless_spacing_is_refused(spacing: tuple[float, ...]) -> None:
    with pytest.raises(MedclipError):
        resample(_volume(_smooth()), spacing)


def test_pixels_become_square_by_the_finer_side() -> None:
    image, spacing = square_pixels(_smooth((20, 10, 1))[:, :, 0], (1.0, 2.5))
    assert image.shape == (20, 25)
    assert spacing == (1.0, 1.0)
    same, spacing = square_pixels(image, (1.0, 1.005))
    assert same is image
    assert spacing == (1.0, 1.005)


def test_slices_are_chosen_evenly_where_there_is_something_to_see() -> None:
    voxels = np.full((40, 64, 64), -1000, np.int16)
    voxels[8:33, 20:44, 20:44] = 40
    volume = _volume(voxels, "HU")
    chosen = slice_indices(volume, 5)
    assert chosen == (10, 15, 20, 25, 30)
    assert slice_indices(volume, 25) == tuple(range(8, 33))
    assert slice_indices(volume, 100) == tuple(range(8, 33))
    voxels[20] = -1000  # an empty slice inside stays
    assert slice_indices(volume, 25) == tuple(range(8, 33))
    assert len(slice_indices(_volume(np.full((40, 8, 8), -1000, np.int16), "HU"), 4)) == 4
    mri = np.where(voxels > 0, 500, 3).astype(np.int16)
    assert slice_indices(_volume(np.stack([mri, mri])), 100) == tuple(range(8, 33))
    with pytest.raises(MedclipError):
        slice_indices(volume, 0)
