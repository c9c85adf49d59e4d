"""Tokens are matched and merged as ToMe's and PiToMe's own code does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from medclip.models.towers.merging_tower import Grouping, energy, margins, match_pitome, match_tome


@pytest.fixture(scope="module")
def of_tome(golden: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden / "tome.npz"))


@pytest.fixture(scope="module")
def of_pitome(golden: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden / "pitome.npz"))


def assert_golden(
    golden: dict[str, np.ndarray], case: str, first: Grouping, again: Callable[[Tensor], Grouping]
) -> None:
    """Compare a merge, and a second one of what was merged, with what the published code gave."""
    merged, size = first.merge(torch.tensor(golden["x"]))
    second = again(merged)  # the second merge compares what the first one left
    merged2, size2 = second.merge(merged, size)
    source = first.sum(every_token(first))
    values = {"merged": merged, "size": size, "source": source, "merged2": merged2, "size2": size2}
    for name, value in values.items():
        if f"{case}/{name}" in golden:
            np.testing.assert_allclose(value, golden[f"{case}/{name}"], atol=1e-5, err_msg=name)


def every_token(grouping: Grouping) -> Tensor:
    """Return the tokens themselves, so that their sum by group says which of them a group holds."""
    num_batch, num_tokens = grouping.place_BT.shape
    return torch.eye(num_tokens).expand(num_batch, -1, -1)


def matched(grouping: Grouping | None) -> Grouping:
    assert grouping is not None
    return grouping


@pytest.mark.golden
@pytest.mark.parametrize(
    ("case", "r", "has_class"), [("r4_cls", 4, 1), ("r8_cls", 8, 1), ("r99_cls", 99, 1), ("r5_nocls", 5, 0)]
)
def test_tome_merges_as_its_code_does(case: str, r: int, has_class: int, of_tome: dict[str, np.ndarray]):
    first = matched(match_tome(torch.tensor(of_tome["metric"]), r, class_token=bool(has_class)))
    assert_golden(of_tome, case, first, lambda m: matched(match_tome(m, 2, class_token=bool(has_class))))


@pytest.mark.golden
@pytest.mark.parametrize(
    ("case", "ratio", "margin", "has_class"),
    [
        ("pitome_r0.75_m0.5_cls", 0.75, 0.5, 1),
        ("pitome_r0.6_m0.9_cls", 0.6, 0.9, 1),
        ("pitome_r0.75_m0.5_nocls", 0.75, 0.5, 0),
    ],
)
def test_pitome_merges_as_its_code_does(
    case: str, ratio: float, margin: float, has_class: int, of_pitome: dict[str, np.ndarray]
):
    def group(metric: Tensor) -> Grouping:
        return matched(match_pitome(metric, ratio, margin, class_token=bool(has_class)))

    metric = torch.tensor(of_pitome["metric"])
    assert_golden(of_pitome, case, group(metric), group)
    energies = energy(metric[:, has_class:], margin)
    np.testing.assert_allclose(energies, of_pitome[f"{case}/energy"], atol=1e-5)


@pytest.mark.golden
def test_margins_fall_in_a_line_as_in_the_code_of_each_model(of_pitome: dict[str, np.ndarray]):
    for name, num_blocks, first in (("deit12", 12, 0.75), ("clip24", 24, 0.95), ("cliphf24", 24, 0.9)):
        np.testing.assert_allclose(margins(num_blocks, first), of_pitome[f"margins_{name}"])


def test_pitome_by_hand_merges_the_two_tokens_that_are_alike():
    tokens = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]])
    energies = energy(tokens, 0.5)
    np.testing.assert_allclose(energies[0], [-0.042585, -0.042585, -0.170102, -0.361802], atol=1e-6)
    merged, size = matched(match_pitome(tokens, 0.75, 0.5, class_token=False)).merge(tokens)
    assert merged.tolist() == [[[0, 1], [-1, 0], [1, 0]]]
    assert size.tolist() == [[[1], [1], [2]]]


def test_tome_by_hand_removes_half_of_the_patches_at_most():
    group = matched(match_tome(torch.randn(1, 17, 4, generator=torch.Generator().manual_seed(0)), 99))
    assert group.num_groups == 9
    assert group.place_BT[0, 0] == 0
    assert (group.place_BT[0] == 0).sum() == 1


@pytest.mark.parametrize("has_class", [True, False])
def test_nothing_is_merged_where_nothing_is_to_go(has_class: bool):
    metric = torch.randn(1, 9, 4)
    assert match_tome(metric, 0, class_token=has_class) is None
    assert match_pitome(metric, 1.0, 0.5, class_token=has_class) is None


@given(
    way=st.sampled_from(["tome", "pitome"]),
    num=st.integers(4, 30),
    seed=st.integers(0, 2**16),
    has_class=st.booleans(),
)
def test_sizes_add_up_and_sums_are_kept_whatever_is_merged(way: str, num: int, seed: int, has_class: bool):
    random = torch.Generator().manual_seed(seed)
    metric = torch.randn(2, num, 5, generator=random, dtype=torch.float64)
    x = torch.randn(2, num, 3, generator=random, dtype=torch.float64)
    matches: dict[str, Callable[[Tensor], Grouping | None]] = {
        "tome": lambda m: match_tome(m, 3, class_token=has_class),
        "pitome": lambda m: match_pitome(m, 0.7, 0.4, class_token=has_class),
    }
    tokens, sizes, source = x, None, None
    for _ in range(2):
        grouping = matches[way](metric)
        if grouping is None:
            break
        metric, _ = grouping.merge(metric)
        tokens, sizes = grouping.merge(tokens, sizes)
        source = grouping.sum(every_token(grouping) if source is None else source)
    if sizes is None or source is None:
        return
    np.testing.assert_allclose(sizes.sum(dim=1)[:, 0], [num, num])
    np.testing.assert_allclose((tokens * sizes).sum(dim=1), x.sum(dim=1), atol=1e-9)
    np.testing.assert_array_equal(source.sum(dim=1), np.ones((2, num)))
    np.testing.assert_array_equal(source.sum(dim=2), sizes[..., 0])
    if has_class:
        np.testing.assert_array_equal(tokens[:, 0], x[:, 0])


def test_another_order_of_patches_gives_the_same_groups_of_pitome():
    random = torch.Generator().manual_seed(3)
    metric, order = torch.randn(1, 12, 6, generator=random), torch.randperm(12, generator=random)
    groups = []
    for places, shuffled in ((torch.arange(12), metric), (order, metric[:, order])):
        group = matched(match_pitome(shuffled, 0.7, 0.3, class_token=False))
        of_place = {int(place): int(of) for place, of in zip(places, group.place_BT[0], strict=True)}
        groups.append({frozenset(p for p in of_place if of_place[p] == g) for g in range(group.num_groups)})
    assert groups[0] == groups[1]
