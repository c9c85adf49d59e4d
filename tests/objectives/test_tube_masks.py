"""Masks of volumes and cine for encoder and decoder, and the normalised target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from medclip.errors import MedclipError, Reason
from medclip.objectives.masked import (
    CELL_RATIOS,
    draw_decoded,
    draw_tube_mask,
    normalise_tubes,
    num_hidden_places,
    patches_of,
    running_cell_mask,
)

GRIDS = [(8, 14, 14), (4, 6, 8)]


def _draw(
    grid: tuple[int, int, int],
    ratio: float = 0.9,
    seed: int = 0,
    batch: int = 3,
    foreground_BN: Tensor | None = None,
) -> Tensor:
    return draw_tube_mask(batch, grid, ratio, torch.Generator().manual_seed(seed), foreground_BN=foreground_BN)


@pytest.fixture
def stored(golden: Path) -> Any:
    return np.load(golden / "videomae2_dual_mask.npz", allow_pickle=False)


@pytest.mark.golden
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("ratio", CELL_RATIOS)
def test_running_cells_equal_the_golden_ones(stored: Any, grid: tuple[int, int, int], ratio: float) -> None:
    expected = stored[f"cell_{'x'.join(map(str, grid))}_r{ratio}_all"]
    ours = [running_cell_mask(grid, ratio, start).view(grid[0], -1) for start in range(4)]
    np.testing.assert_array_equal(torch.stack(ours), expected)


@pytest.mark.golden
@pytest.mark.parametrize("grid", GRIDS)
def test_tubes_hide_as_many_places_as_the_golden_ones(stored: Any, grid: tuple[int, int, int]) -> None:
    golden_mask = stored[f"tube_{'x'.join(map(str, grid))}"]
    hidden = int(golden_mask[0].sum())
    ratio = next(r for r in (0.9, 0.75) if int(r * grid[1] * grid[2]) == hidden)
    frames = _draw(grid, ratio).view(3, grid[0], -1)
    assert frames.sum(2).eq(hidden).all()
    np.testing.assert_array_equal(golden_mask, np.repeat(golden_mask[:1], grid[0], axis=0))


@pytest.mark.golden
def test_the_target_and_the_loss_equal_the_golden_ones(stored: Any) -> None:
    clips, hidden, skipped = (torch.tensor(stored[name]) for name in ("images", "enc_mask", "dec_mask"))
    tube = (int(stored["tubelet"]), int(stored["patch"]), int(stored["patch"]))
    every, _ = normalise_tubes(patches_of(clips, tube), torch.ones(3), floor=1e-6)
    np.testing.assert_allclose(every[0, ~skipped[0]][:4], stored["targets_first_sample_first4"], atol=1e-4)
    decoded = ~skipped
    assert decoded.sum(1).tolist() == [int(stored["n_decoded"])] * 2
    counted = hidden[decoded].view(2, -1)
    assert int(counted.sum()) == int(stored["n_loss_tokens"])
    error = (torch.tensor(stored["decoder_outputs_f16"]).float() - every[decoded].view(2, 72, -1)).square().mean(-1)
    loss = (error * counted).sum() / counted.sum()
    np.testing.assert_allclose(loss, stored["loss_with_f16_outputs"], atol=1e-4)


def test_sizes_are_those_of_the_paper() -> None:
    mask = _draw((8, 14, 14))
    assert (~mask).sum(1).tolist() == [160] * 3
    decoded = draw_decoded(3, (8, 14, 14), 0.5, torch.Generator().manual_seed(0))
    assert decoded.sum(1).tolist() == [784] * 3
    assert (decoded & mask).sum(1).tolist() == [704] * 3  # 8 is a multiple of 4


def test_tubes_are_the_same_at_all_times_and_the_seed_decides_which() -> None:
    mask = _draw((4, 6, 6), 0.75)
    frames = mask.view(3, 4, 36)
    assert frames.eq(frames[:, :1]).all()
    assert frames.sum(2).eq(27).all()
    assert torch.equal(mask, _draw((4, 6, 6), 0.75))
    assert not torch.equal(mask, _draw((4, 6, 6), 0.75, seed=1))
    assert not torch.equal(mask[0], mask[1])


@pytest.mark.parametrize("ratio", CELL_RATIOS)
def test_each_place_is_left_out_equally_often_and_each_frame_equally_much(ratio: float) -> None:
    for start in range(4):
        frames = running_cell_mask((7, 4, 6), ratio, start).view(7, 24).int()
        assert frames.sum(1).tolist() == [int(ratio * 24)] * 7
        for first in range(4):
            assert frames[first : first + 4].sum(0).eq(int(4 * ratio)).all()


def test_decoded_is_the_opposite_of_a_running_cell_and_starts_vary() -> None:
    cells = torch.stack([running_cell_mask((4, 2, 2), 0.25, start) for start in range(4)])
    decoded = draw_decoded(64, (4, 2, 2), 0.25, torch.Generator().manual_seed(0))
    starts = [[torch.equal(row, ~cell) for cell in cells].index(True) for row in decoded]
    assert set(starts) == {0, 1, 2, 3}


@pytest.mark.parametrize("ratio", [1.0, -0.1, float("nan")])
def test_a_ratio_that_leaves_nothing_to_see_is_refused(ratio: float) -> None:
    with pytest.raises(MedclipError, match="places of a frame") as caught:
        num_hidden_places(16, ratio)
    assert caught.value.reason is Reason.WRONG_USE


@pytest.mark.parametrize(("grid", "ratio"), [((4, 7, 8), 0.5), ((4, 8, 7), 0.5), ((4, 8, 8), 0.4)])
def test_odd_grids_and_other_shares_have_no_running_cells(grid: tuple[int, int, int], ratio: float) -> None:
    with pytest.raises(MedclipError, match="running cells") as caught:
        running_cell_mask(grid, ratio, 0)
    assert caught.value.reason is Reason.WRONG_USE


def test_targets_have_mean_0_and_deviation_1_in_each_channel() -> None:
    target, _ = normalise_tubes(torch.rand(2, 3, 2 * 4 * 4 * 3), torch.ones(3), floor=1e-6)
    pixels = target.unflatten(-1, (-1, 3))
    torch.testing.assert_close(pixels.mean(-2), torch.zeros(2, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(pixels.std(-2), torch.ones(2, 3, 3), atol=1e-3, rtol=0)


def test_what_pixels_were_divided_by_changes_neither_the_target_nor_what_is_flat() -> None:
    pixels = torch.rand(1, 6, 8 * 2) * torch.logspace(-4, 0, 6)[:, None]
    std = torch.tensor([0.25, 0.5])
    divided = ((pixels.unflatten(-1, (-1, 2)) - 0.4) / std).flatten(-2)
    for own, other in zip(normalise_tubes(pixels, torch.ones(2)), normalise_tubes(divided, std), strict=True):
        torch.testing.assert_close(own.float(), other.float(), atol=1e-3, rtol=1e-3)


def test_noise_in_a_dark_background_does_not_become_the_target() -> None:
    noise = torch.randn(1, 1, 512) * 5e-4
    target, varied = normalise_tubes(noise, torch.ones(1))
    assert float(target.abs().max()) < 0.3
    assert not varied.any()
    assert float(normalise_tubes(noise, torch.ones(1), floor=1e-6)[0].abs().max()) > 2


def test_tubes_are_never_placed_on_the_background_alone() -> None:
    foreground = torch.zeros(50, 2, 36, dtype=torch.bool)
    foreground[:, 1, 14:18] = True  # at one time only
    mask = _draw((2, 6, 6), 0.9, batch=50, foreground_BN=foreground.flatten(1)).view(50, 2, 36)
    assert mask.sum(2).eq(32).all()
    assert (~mask[:, 0, 14:18]).sum(1).eq(1).all()
    blind = _draw((2, 6, 6), 0.9, batch=50).view(50, 2, 36)
    assert (~blind[:, 0, 14:18]).sum(1).eq(0).any()
