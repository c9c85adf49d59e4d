"""Fixed positions, other grids, and images become tubes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d, conv3d

from medclip.errors import MedclipError, Reason
from medclip.models.towers.patch_decoder import inflate_patch_weights, resize_positions, sincos_positions


@pytest.mark.golden
def test_sin_cos_tables_and_their_interpolation_equal_the_golden_ones(golden: Path) -> None:
    stored = np.load(golden / "medical_mae_posemb_and_counts.npz", allow_pickle=False)
    names = [key for key in stored if key.startswith("sincos")]
    assert len(names) == 3
    for name in names:
        dim, side = (int(part[1:]) for part in name.split("_")[1:])
        table = sincos_positions((side, side), dim, prefix=1)[: len(stored[name])]
        np.testing.assert_allclose(table, stored[name], atol=1e-12)
    larger = resize_positions(torch.tensor(stored["interp_in"]), (4, 4), (6, 6))
    np.testing.assert_allclose(larger, stored["interp_out_6x6"], atol=1e-5, rtol=1e-4)


def test_columns_stand_in_the_first_half_and_rows_in_the_second() -> None:
    table = sincos_positions((2, 3), 8).view(2, 3, 8)
    assert torch.equal(table[0, :, :4], table[1, :, :4])
    assert torch.equal(table[:, 0, 4:], table[:, 2, 4:])
    assert not torch.equal(table[0, 0, :4], table[0, 1, :4])


def test_tubes_are_numbered_through_with_sine_and_cosine_in_turn() -> None:
    table = sincos_positions((2, 2, 2), 6, prefix=1)
    assert table.shape == (9, 6)
    assert not table[0].any()
    rate = 10_000 ** (-2 / 6)
    expected = [np.sin(5.0), np.cos(5.0), np.sin(5 * rate), np.cos(5 * rate)]
    np.testing.assert_allclose(table[6, :4], expected)


@pytest.mark.parametrize(("grid", "dim"), [((2, 2), 6), ((2, 2, 2), 5)])
def test_a_width_that_cannot_be_shared_out_is_refused(grid: tuple[int, ...], dim: int) -> None:
    with pytest.raises(MedclipError, match="no multiple of") as caught:
        sincos_positions(grid, dim)
    assert caught.value.reason is Reason.WRONG_USE


def test_the_same_grid_keeps_its_positions_to_the_bit() -> None:
    for grid in ((3, 4), (2, 3, 4)):
        table = torch.randn(1, 2 + int(np.prod(grid)), 8)
        assert torch.equal(resize_positions(table, grid, grid), table)


def test_an_image_becomes_a_clip_that_has_its_positions_at_every_time() -> None:
    table = torch.randn(1, 1 + 6, 8)
    clip = resize_positions(table, (2, 3), (4, 2, 3))
    assert torch.equal(clip[:, :1], table[:, :1])
    for part in clip[:, 1:].chunk(4, dim=1):
        torch.testing.assert_close(part, table[:, 1:])


def test_time_is_interpolated_linearly_and_the_places_stay() -> None:
    table = torch.tensor([0.0, 1.0]).view(1, 2, 1).repeat_interleave(4, 1).repeat(1, 1, 2)  # 2 times of 2 x 2
    longer = resize_positions(table, (2, 2, 2), (4, 2, 2)).view(4, 4, 2)
    assert longer.shape == (4, 4, 2)
    torch.testing.assert_close(longer[:, 0, 0], torch.tensor([0.0, 0.25, 0.75, 1.0]))
    assert torch.equal(longer[:, 0], longer[:, 3])


@pytest.mark.parametrize(("old", "new"), [((2, 2, 2), (2, 2)), ((3, 3), (6, 6))])
def test_grids_that_positions_do_not_have_are_refused(old: tuple[int, ...], new: tuple[int, ...]) -> None:
    with pytest.raises(MedclipError) as caught:
        resize_positions(torch.zeros(1, 8, 4), old, new)
    assert caught.value.reason is Reason.WRONG_USE


@pytest.mark.parametrize("channels", [None, 1])
def test_a_clip_that_stands_still_is_embedded_as_its_image(channels: int | None) -> None:
    weight, grey = torch.randn(5, 3, 4, 4), torch.randn(2, 1, 8, 8)
    flat = conv2d(grey.expand(-1, 3, -1, -1), weight, stride=4)
    clip = grey.expand(-1, channels or 3, -1, -1)[:, :, None].expand(-1, -1, 2, -1, -1)
    tubes = conv3d(clip, inflate_patch_weights(weight, 2, channels), stride=(2, 4, 4))
    torch.testing.assert_close(tubes[:, :, 0], flat, atol=1e-5, rtol=1e-5)


def test_channels_that_an_embedding_cannot_read_are_refused() -> None:
    with pytest.raises(MedclipError, match="3 channels cannot read 2"):
        inflate_patch_weights(torch.zeros(5, 3, 4, 4), 2, 2)
