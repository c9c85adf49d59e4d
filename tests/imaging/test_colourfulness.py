"""Colour is told from tint: photographs are in colour, and scans of films, stored as RGB and tinted, are not."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from medclip.imaging.intensity import has_colours
from tests.kits.codestreams import film

GREY = film(8)


def _jpeg(pixels: NDArray[Any], quality: int) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def dermoscopy(seed: int = 0) -> NDArray[np.uint8]:
    """Draw a brown lesion with a bluish part on rosy skin."""
    y, x = np.mgrid[-1:1:160j, -1:1:160j]
    inside = 1 / (1 + np.exp(12 * (np.hypot(x, y * 1.2) - 0.6)))[..., None]
    blue = 1 / (1 + np.exp(12 * (np.hypot(x - 0.2, y) - 0.25)))[..., None]
    skin, brown, slate = (np.array(colour, float) for colour in ((225, 170, 155), (120, 75, 50), (90, 95, 115)))
    colours = skin + inside * (brown - skin) + inside * blue * (slate - brown)
    colours += 14 * (np.sin(7 * x + 3) * np.cos(5 * y))[..., None] * np.array((1, 0, -0.5))  # vessels, and none
    noise = np.random.default_rng(seed).normal(0, 5, (160, 160, 1))
    return (colours + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("quality", [60, 95])
def test_a_photograph_of_skin_is_in_colour(quality: int) -> None:
    assert has_colours(dermoscopy())
    assert has_colours(_jpeg(dermoscopy(), quality))


def test_bars_and_false_colours_are_in_colour_though_each_brightness_has_one_hue() -> None:
    bars = np.repeat(np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)], np.uint8), 30, axis=0)
    assert has_colours(np.repeat(bars[None], 100, axis=0))
    level = GREY.astype(float)
    assert has_colours(np.stack([level, 255 - level, level], axis=-1).astype(np.uint8))  # from green to pink
    hot = np.stack([level * 3, level * 3 - 255, level * 3 - 510], axis=-1)  # black, red, yellow, white
    assert has_colours(hot.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("tint", [(1, 1, 1), (1, 0.9, 0.7), (0.7, 0.8, 1), (1, 0.95, 0.8)])
@pytest.mark.parametrize("quality", [75, 95])
def test_a_tinted_film_stored_as_rgb_is_not(tint: tuple[float, float, float], quality: int) -> None:
    tinted = (GREY[..., None] * np.array(tint)).astype(np.uint8)
    assert not has_colours(tinted)
    assert not has_colours(_jpeg(tinted, quality))


def test_a_film_with_marks_in_colour_is_not() -> None:
    marked = np.repeat(GREY[..., None], 3, -1)
    marked[5:15, 5:60] = (255, 0, 0)
    marked[100:120, 90:120] = (0, 200, 255)
    assert not has_colours(marked)


def test_one_channel_has_no_colour() -> None:
    assert not has_colours(GREY[..., None])
