"""Perceptual hashes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import MedclipError, Reason
from medclip.imaging.geometry import letterbox
from medclip.imaging.perceptual_hash import (
    coarse_distance,
    fine_distance,
    hash_images,
    hash_lines,
    read_hash_lines,
    variants_of,
)
from tests.kits.leakage import Pixels, brighter, cropped, film, resized_jpeg


def bits_apart(one: Pixels, other: Pixels) -> tuple[int, int]:
    a, b = hash_images([one]), hash_images([other])
    return int(coarse_distance(a.coarse_N, b.coarse_N)[0]), int(fine_distance(a.fine_NW, b.fine_NW)[0])


@pytest.mark.parametrize(
    ("change", "most"),
    [(resized_jpeg, 16), (brighter, 16), (cropped, 44), (lambda p: resized_jpeg(brighter(cropped(p))), 44)],
)
def test_a_copy_keeps_nearly_all_its_bits(change, most: int):
    apart = [bits_apart(film(s), change(film(s))) for s in range(10)]
    assert max(coarse for coarse, _ in apart) <= 10
    assert max(fine for _, fine in apart) <= most


def test_films_of_other_people_differ_in_many_fine_bits():
    hashes = hash_images([film(s) for s in range(40)])
    i, j = np.triu_indices(40, 1)
    assert fine_distance(hashes.fine_NW[i], hashes.fine_NW[j]).min() > 56


def test_a_files_pixels_and_the_models_view_of_them_have_nearly_the_same_hash():
    for height, width in ((200, 180), (150, 220), (200, 200)):
        image = film(3, height, width)
        assert bits_apart(image, letterbox(image[:, :, None], 224))[1] <= 12


def test_grey_and_colour_of_the_same_image_have_the_same_hash():
    image = film(1)
    assert bits_apart(image, image[:, :, None]) == (0, 0)
    assert bits_apart(image, np.repeat(image[:, :, None], 3, axis=2)) == (0, 0)


@given(st.integers(0, 10**6))
def test_variants_undo_themselves(seed: int):
    image = film(seed, 24, 20)
    mirrored, inverted, both = variants_of(image)[1:]
    assert np.array_equal(variants_of(mirrored)[1], image)
    assert np.array_equal(variants_of(inverted)[2], image)
    assert np.array_equal(variants_of(both)[3], image)


def test_an_inverted_image_on_black_padding_is_recognised():
    view, other = (letterbox(p[:, :, None], 128) for p in (film(5), 255 - film(5)))
    assert bits_apart(view, other)[1] > 56
    assert bits_apart(variants_of(view)[2], other)[1] <= 8


def test_the_bit_of_the_mean_is_never_set_and_a_blank_image_has_a_hash():
    hashes = hash_images([film(1), np.zeros((8, 8), np.uint8), np.full((9, 30), 255, np.uint8)])
    assert not (hashes.coarse_N & np.uint64(1)).any()
    assert not (hashes.fine_NW[:, 0] & np.uint64(1)).any()
    assert len(hash_images([])) == 0
    assert len(hashes.take(np.array([0, 2]))) == 2


def test_hashes_written_as_lines_come_back():
    hashes = hash_images([film(s) for s in range(5)])
    read = read_hash_lines(hash_lines(hashes))
    np.testing.assert_array_equal(read.coarse_N, hashes.coarse_N)
    np.testing.assert_array_equal(read.fine_NW, hashes.fine_NW)
    assert len(read_hash_lines([])) == 0
    for damaged in ("", "0" * 79, "g" * 80):
        with pytest.raises(ValueError, match=r"line|invalid literal"):
            read_hash_lines([damaged])


@pytest.mark.parametrize(
    "image", [np.zeros((20, 20)), np.zeros((7, 20), np.uint8), np.zeros((20, 20, 2), np.uint8), np.zeros(9, np.uint8)]
)
def test_what_is_no_image_is_refused(image: np.ndarray):
    with pytest.raises(MedclipError) as refused:
        hash_images([image])
    assert refused.value.reason is Reason.WRONG_USE
