"""Other libraries' resizing, against the libraries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from medclip.imaging.geometry import resample, resize

SIZES = [((97, 64), (32, 32)), ((500, 333), (224, 224)), ((50, 50), (90, 70)), ((1000, 1200), (48, 64))]


def noise(height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(height).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("before", "after"), SIZES)
def test_torchvisions_resizing_of_bytes_is_met_to_the_bit(
    before: tuple[int, int], after: tuple[int, int], interpolation: str
) -> None:
    pixels = noise(*before)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    theirs = tv.resize(tensor, list(after), interpolation=InterpolationMode(interpolation), antialias=True)
    np.testing.assert_array_equal(resample(pixels, *after, interpolation, "torchvision"), theirs.permute(1, 2, 0))


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_tensorflows_default_is_bilinear_without_smoothing_cut_to_whole_numbers(
    before: tuple[int, int], after: tuple[int, int]
) -> None:
    pixels = noise(*before)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    exact = torch.nn.functional.interpolate(tensor, after, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
    cut = exact.numpy() - resample(pixels, *after, "bilinear", "tensorflow")
    assert cut.min() > -1e-3
    assert cut.max() < 1 + 1e-3
    flat = np.full((*before, 1), 77, np.uint8)
    assert (resample(flat, *after, "bilinear", "tensorflow") == 77).all()


def test_pillow_and_torchvision_differ_by_a_grey_level_and_tensorflow_by_the_roughness() -> None:
    pixels = noise(500, 333)
    for interpolation in ("bilinear", "bicubic"):
        pillow = resize(pixels, 224, 224, interpolation).astype(int)
        gap = np.abs(pillow - resample(pixels, 224, 224, interpolation, "torchvision"))
        assert 1 <= gap.max() <= 10
        assert (gap > 1).mean() < 0.005
        assert (gap > 0).mean() < 0.25  # of noise, the roughest there is
    rough = np.abs(
        resize(pixels, 224, 224, "bilinear").astype(int) - resample(pixels, 224, 224, "bilinear", "tensorflow")
    )
    assert rough.mean() > 10
