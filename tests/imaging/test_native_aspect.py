"""Images at their own aspect ratio: what fits into a budget of patches, and how they are cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.imaging.geometry import TokenBudget, letterbox

side = st.integers(1, 6000)
budgets = st.builds(TokenBudget, st.sampled_from([8, 14, 16, 32]), st.integers(1, 1024))


def _noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


@given(side, side, budgets)
def test_a_grid_is_within_the_budget_and_sides_are_half_a_patch_off_at_most(
    h: int, w: int, budget: TokenBudget
) -> None:
    rows, columns = budget.grid(h, w)
    assert 1 <= rows * columns <= budget.max_tokens
    # Some size s * (h, w), in patches, rounds to this grid; one patch stands for anything smaller.
    lowest = max((n - 0.5) / length if n > 1 else 0 for n, length in ((rows, h), (columns, w)))
    highest = min((n + 0.5) / length for n, length in ((rows, h), (columns, w)))
    assert lowest <= highest
    assert budget.size_px(h, w) == (rows * budget.patch_px, columns * budget.patch_px)


@given(side, side, budgets)
def test_the_next_larger_size_does_not_fit(h: int, w: int, budget: TokenBudget) -> None:
    rows, columns = budget.grid(h, w)
    larger = min((rows + 0.5) / h, (columns + 0.5) / w) * (1 + 1e-9)
    assert max(1, int(larger * h + 0.5)) * max(1, int(larger * w + 0.5)) > budget.max_tokens


@given(side, side, budgets)
def test_a_turned_image_has_the_turned_grid(h: int, w: int, budget: TokenBudget) -> None:
    assert budget.grid(w, h) == budget.grid(h, w)[::-1]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_square_image_is_what_the_letterbox_makes_of_it(channels: int) -> None:
    pixels = _noise(517, 517, channels)
    assert np.array_equal(TokenBudget(16, 196).fit(pixels), letterbox(pixels, 224))


def test_a_long_image_is_resized_without_bars() -> None:
    pixels = np.full((300, 900, 3), 200, np.uint8)
    fitted = TokenBudget(16, 196).fit(pixels)
    assert fitted.shape == (8 * 16, 24 * 16, 3)
    assert (fitted == 200).all()


def test_the_grid_stands_first_then_patches_row_by_row_and_the_rest_is_zero() -> None:
    budget, image = TokenBudget(8, 7), _noise(16, 24)
    packed = budget.pack(image)
    assert packed.shape == budget.packed_shape == (8, 192)
    assert packed[0, :4].view("<u2").tolist() == [2, 3]
    assert not packed[0, 4:].any()
    for place, (y, x) in enumerate(((y, x) for y in range(2) for x in range(3)), 1):
        assert np.array_equal(packed[place], image[8 * y : 8 * y + 8, 8 * x : 8 * x + 8].ravel())
    assert not packed[7:].any()
    assert np.array_equal(budget.unpack(packed), image)


def test_only_whole_patches_within_the_budget_are_held() -> None:
    budget = TokenBudget(16, 10)
    assert budget.holds(32, 80)
    assert not budget.holds(32, 96)
    assert not budget.holds(32, 81)
    assert not budget.holds(0, 32)
