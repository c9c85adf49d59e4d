"""Volumes go to MONAI and come back with every voxel in its place."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from medclip.errors import MedclipError, Reason
from medclip.imaging.volume.monai import from_monai, to_monai
from medclip.sample import Volume


@pytest.fixture(scope="module", autouse=True)
def _quiet_import() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's own imports warn
        import monai.transforms  # noqa: F401


def _volume() -> Volume:
    voxels = np.zeros((6, 8, 10), np.float32)
    voxels[4, 2, 7] = 100
    affine = np.array([[0, 0, -1.5, 20], [0, -1.5, 0, 30], [4.0, 0, 0, -10], [0, 0, 0, 1]])
    return Volume(voxels, affine, "HU", "axial")


def _place(volume: Volume) -> np.ndarray:
    index = np.unravel_index(int(np.argmax(volume.voxels)), volume.voxels.shape)
    return (volume.affine @ [*index, 1])[:3]


def test_a_volume_comes_back_as_it_went() -> None:
    volume = _volume()
    back = from_monai(to_monai(volume), unit="HU")
    np.testing.assert_array_equal(back.voxels, volume.voxels)
    np.testing.assert_allclose(back.affine, volume.affine)
    assert (back.unit, back.plane) == ("HU", "axial")


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAR", "PIR"])
def test_a_reoriented_tensor_keeps_every_place(axes: str) -> None:
    from monai.transforms.spatial.array import Orientation

    turned = Orientation(axcodes=axes, labels=None)(to_monai(_volume()))
    back = from_monai(turned, unit="HU", plane="axial")
    np.testing.assert_allclose(_place(back), _place(_volume()), atol=1e-6)
    np.testing.assert_array_equal(back.voxels, _volume().voxels)


def test_a_resampled_tensor_keeps_its_millimetres() -> None:
    from monai.transforms.spatial.array import Spacing

    finer = Spacing(pixdim=(2.0, 1.5, 1.5))(to_monai(_volume()))
    back = from_monai(finer, unit="HU")
    assert back.spacing_mm == pytest.approx((2.0, 1.5, 1.5), abs=1e-6)
    np.testing.assert_allclose(_place(back), _place(_volume()), atol=1.0)


def test_frames_are_channels() -> None:
    volume = _volume()
    moving = Volume(np.stack([volume.voxels, volume.voxels * 2]), volume.affine, "relative", "axial")
    assert from_monai(to_monai(moving), unit="relative").voxels.shape == (2, 6, 8, 10)


def test_a_bare_array_is_refused() -> None:
    with pytest.raises(MedclipError) as caught:
        from_monai(np.zeros((1, 2, 3, 4)), unit="HU")
    assert caught.value.reason is Reason.WRONG_USE
