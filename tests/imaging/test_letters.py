"""Letters that are burned into an image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from medclip.imaging.letters import letter_boxes


def tissue(seed: int = 0) -> np.ndarray:
    """A smooth grey image as of soft tissue, with noise."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(256, 200)), 12)
    grey = 110 + 90 * smooth / np.abs(smooth).max() + rng.normal(scale=3, size=smooth.shape)
    return np.clip(grey, 0, 220).astype(np.uint8)


def with_word(grey: np.ndarray, word: str, at: tuple[int, int], size: int = 18) -> np.ndarray:
    image = Image.fromarray(grey).copy()
    ImageDraw.Draw(image).text(at, word, fill=250, font=ImageFont.load_default(size))
    return np.asarray(image)


@pytest.mark.parametrize("word", ["L", "R", "PORTABLE", "12:30"])
def test_a_word_is_seen_where_it_stands_and_nothing_without_it(word: str) -> None:
    assert letter_boxes(tissue()) == ()
    boxes = letter_boxes(with_word(tissue(), word, (30, 200)))
    assert boxes
    assert all(box.top >= 195 and box.bottom <= 226 and box.left >= 25 for box in boxes)


def test_letters_at_the_edge_and_of_colour_images_are_seen() -> None:
    assert letter_boxes(with_word(tissue(), "R", (0, -4)))
    assert letter_boxes(np.repeat(with_word(tissue(), "R", (30, 200))[..., None], 3, axis=2))


def test_a_bright_disc_and_a_smooth_line_are_no_letters() -> None:
    image = Image.fromarray(tissue()).copy()
    ImageDraw.Draw(image).ellipse((60, 60, 130, 130), fill=250)
    ImageDraw.Draw(image).line((0, 150, 200, 170), fill=250, width=3)
    assert letter_boxes(np.asarray(image)) == ()


def test_images_of_no_size_have_no_letters() -> None:
    assert letter_boxes(np.zeros((3, 5, 1), np.uint8)) == ()
