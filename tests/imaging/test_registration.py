"""Cropped and rotated copies are registered on what they were copied from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medclip.imaging import registration
from medclip.imaging.geometry import letterbox
from medclip.imaging.perceptual_hash import SMALL_PX, small_image
from medclip.imaging.registration import (
    LEAST_CORRELATION,
    Registered,
    candidates,
    limit,
    register,
)
from medclip.progress import Silent
from tests.kits.leakage import Pixels, brighter, cropped, film, resized_jpeg, rotated


def small(images: list[Pixels]) -> np.ndarray:
    return np.array([small_image(image) for image in images])


FILMS = [film(seed) for seed in range(24)]


@settings(max_examples=15, deadline=None)
@given(
    st.floats(-3, 3),
    st.floats(0, 0.08),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(0, len(FILMS) - 1),
    st.booleans(),
)
def test_a_copy_cropped_anywhere_by_8_percent_and_rotated_by_3_degrees_is_found(degrees, share, top, left, n, swapped):
    image = rotated(FILMS[n], degrees)
    height, width = image.shape
    cut = round(share * height), round(share * width)
    start = round(top * cut[0]), round(left * cut[1])
    copy = image[start[0] : height - cut[0] + start[0], start[1] : width - cut[1] + start[1]]
    copies, films = small([copy]), small(FILMS)
    one, other = (films, copies) if swapped else (copies, films)
    pairs = register(one, other, candidates(one, other)).at_least(LEAST_CORRELATION)
    assert list(zip(pairs.one_K, pairs.other_K, strict=True)) == ([(n, 0)] if swapped else [(0, n)])


def test_different_films_are_far_below_the_limit_and_a_film_and_itself_correlate_fully():
    films = small(FILMS)
    pairs = register(films, films, candidates(films))
    assert (pairs.one_K < pairs.other_K).all()
    assert pairs.correlation_K.max(initial=-1) < 0.8
    every = np.arange(len(FILMS))
    np.testing.assert_allclose(register(films, films, (every, every)).correlation_K, 1, atol=1e-3)


def test_candidates_do_not_depend_on_how_many_are_compared_at_once(monkeypatch: pytest.MonkeyPatch):
    copies, films = small([cropped(f, 0.08) for f in FILMS]), small(FILMS)
    at_once = [a.tolist() for a in candidates(copies, films)]
    monkeypatch.setattr(registration, "_ROWS_AT_ONCE", 5)
    monkeypatch.setattr(registration, "_COLUMNS_AT_ONCE", 7)
    monkeypatch.setattr(registration, "_PAIRS_AT_ONCE", 3)
    assert [a.tolist() for a in candidates(copies, films)] == at_once
    assert set(range(len(FILMS))) <= {i for i, j in zip(*at_once, strict=True) if i == j}


def test_the_candidates_that_are_most_alike_are_kept_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch):
    copies, films = small([resized_jpeg(f) for f in FILMS]), small(FILMS)
    monkeypatch.setattr(registration, "_MOST_CANDIDATES", len(FILMS))
    one, other = candidates(copies, films)
    assert sorted(one) == sorted(other) == list(range(len(FILMS)))
    assert (one == other).all()


def test_empty_sets_have_no_candidates():
    nothing, films = np.zeros((0, SMALL_PX, SMALL_PX), np.uint8), small(FILMS[:2])
    for pair in ((nothing, films), (films, nothing), (nothing, None)):
        assert len(candidates(*pair)[0]) == 0
    assert len(register(nothing, films, candidates(nothing, films)).correlation_K) == 0


def test_flat_images_are_no_copies_of_anything():
    flat = np.full((2, SMALL_PX, SMALL_PX), 90, np.uint8)
    pairs = register(flat, flat, (np.array([0]), np.array([1])))
    assert pairs.correlation_K[0] < LEAST_CORRELATION
    assert len(candidates(flat)[0]) == 0


def test_the_round_edge_and_the_black_around_it_make_no_copies():
    y, x = np.mgrid[-1:1:200j, -1:1:200j]
    discs = small([np.where(x**2 + y**2 < 0.8, film(seed, 200, 200), 0).astype(np.uint8) for seed in range(8)])
    one, other = np.triu_indices(8, 1)
    assert register(discs, discs, (one, other)).correlation_K.max() < LEAST_CORRELATION - 0.1
    every = np.arange(8)
    np.testing.assert_allclose(register(discs, discs, (every, every)).correlation_K, 1, atol=1e-3)
    black = np.zeros((2, SMALL_PX, SMALL_PX), np.uint8)
    assert register(black, black, (np.array([0]), np.array([1]))).correlation_K[0] == -1


def test_a_models_view_is_small_like_the_file_it_was_made_of():
    for height, width in ((200, 150), (150, 220), (180, 180)):
        image = brighter(film(7, height, width))
        view = letterbox(image[:, :, None], 224)
        pairs = register(small([image]), small_image(view, letterboxed=True)[None], (np.array([0]), np.array([0])))
        assert pairs.correlation_K[0] > 0.97


def test_the_limit_rises_where_different_patients_are_very_alike_and_with_the_number_of_pairs():
    rng = np.random.default_rng(0)

    def at(middle: float, num_pairs: int, num: int = 300) -> float:
        correlations = np.tanh(rng.normal(np.arctanh(middle), 0.2, num)).astype(np.float32)
        pairs = Registered(np.arange(num), np.arange(num) + 1, correlations)
        return limit(pairs, np.arange(num + 1, dtype=np.int32), num + 1, num_pairs)

    assert at(0.5, 10**4) == LEAST_CORRELATION
    assert at(0.85, 10**4) > LEAST_CORRELATION + 0.02
    assert at(0.85, 10**8) > at(0.85, 10**4)
    assert at(0.85, 10**8, num=20) == LEAST_CORRELATION  # too few to say anything
    one_patient = Registered(np.arange(300), np.arange(300) + 1, np.full(300, 0.9, np.float32))
    assert limit(one_patient, np.zeros(301, np.int32), 301, 10**8) == LEAST_CORRELATION


def test_images_of_another_set_are_of_other_patients_and_many_of_them_lower_the_limit():
    correlations = np.tanh(np.random.default_rng(0).normal(np.arctanh(0.85), 0.2, 300)).astype(np.float32)
    pairs = Registered(np.zeros(300, int), np.zeros(300, int), correlations)
    few, many = (limit(pairs, np.zeros(1, np.int32), 100, 10**6, num) for num in (10, 10**4))
    assert few > many > LEAST_CORRELATION


def test_every_registered_pair_is_told_to_the_progress():
    class Told(Silent):
        num_expected = num_done = 0

        def stage(self, name: str, total: int, done: int = 0) -> None:
            self.num_expected += total

        def step(self, count: int = 1, text: str = "") -> None:
            self.num_done += count

    films, told = small(FILMS), Told()
    pairs = register(films, films, candidates(films), progress=told)
    assert told.num_expected == told.num_done == len(pairs.one_K) > 0
