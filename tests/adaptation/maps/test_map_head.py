"""The head that is stored is the head that was learned, as one line over tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medclip.adaptation.data.heads import load_head
from medclip.adaptation.data.token_heads import columns_of
from medclip.adaptation.maps.decoders import Head, margins
from medclip.adaptation.maps.map_head import MapHead, map_head
from medclip.errors import MedclipError, Reason
from medclip.models.towers.tokens import Tokens

GRID = (3, 4)


def tokens_of(maps_NDhw: np.ndarray) -> Tokens[np.ndarray]:
    tokens_NLD = maps_NDhw.reshape(*maps_NDhw.shape[:2], -1).swapaxes(1, 2)
    grid = tuple(maps_NDhw.shape[2:])
    mask_NL = np.ones(tokens_NLD.shape[:2], np.bool_)
    return Tokens(tokens_NLD, mask_NL, tokens_NLD[:, :0], (grid,) * len(maps_NDhw), tokens_NLD[:, 0])


@pytest.fixture
def learned() -> Head:
    head, generator = Head(5), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for values in (*head.parameters(), head[0].running_mean, head[0].running_var):
            values.uniform_(0.2, 2, generator=generator)  # type: ignore[union-attr]
    return head.eval().requires_grad_(False)


def test_one_line_says_what_batch_norm_and_convolution_say(learned: Head) -> None:
    maps = np.random.default_rng(0).standard_normal((2, 5, *GRID)).astype(np.float32)
    head = map_head(learned, GRID, levels=False)
    logits = head.logits(tokens_of(maps), None)
    assert logits.shape == (2, head.num_logits) == (2, 12)
    assert np.stack([head.grids(row)[0] for row in logits]) == pytest.approx(margins(learned, maps), abs=1e-5)


def test_a_head_comes_back_from_its_arrays_as_it_was(learned: Head) -> None:
    head = map_head(learned, GRID, levels=True)
    again = load_head("map", head.arrays())
    assert isinstance(again, MapHead)
    assert (again.rows, again.columns, again.levels) == (3, 4, True)
    assert np.array_equal(again.weight_DC, head.weight_DC)
    assert np.array_equal(again.bias_C, head.bias_C)


def test_a_map_has_a_column_for_each_place_behind_the_vector(learned: Head) -> None:
    assert columns_of({"lesion": (map_head(learned, GRID, levels=False), 1)}, 7) == {"lesion": slice(7, 19)}


def test_another_grid_than_was_learned_on_is_refused(learned: Head) -> None:
    with pytest.raises(MedclipError, match="3 x 4 places") as caught:
        map_head(learned, GRID, levels=False).logits(tokens_of(np.zeros((1, 5, 2, 2), np.float32)), None)
    assert caught.value.reason is Reason.NOT_SUPPORTED_YET
