"""Views drawn to their centre: the released code's numbers, cases by hand, and what no order may change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from medclip.objectives.views import (
    hard_views,
    nearest_other_centre,
    num_hard_views,
    similarity_to_centre,
    view_centre,
    view_loss,
)
from tests.kits.objectives import unit


@pytest.fixture
def released(golden: Path) -> dict[str, Tensor]:
    with np.load(golden / "ovt_viewpoint.npz") as g:
        return {name: torch.from_numpy(g[name]) for name in g}


def _centres(released: dict[str, Tensor]) -> Tensor:
    return torch.stack([view_centre(view_VD) for view_VD in released["view_features_padded"]])


def test_centres_and_hard_views_are_those_of_the_released_code(released: dict[str, Tensor]) -> None:
    centre_OD, owner_N = _centres(released), released["object_ids"]
    torch.testing.assert_close(centre_OD, released["centers"], atol=1e-5, rtol=0)
    similarity_N = similarity_to_centre(released["flat_features"], centre_OD[owner_N])
    torch.testing.assert_close(similarity_N, released["similarity_to_center"], atol=1e-5, rtol=0)
    for number, worst in enumerate(released["hard_indices_K3"]):
        rows = (owner_N == number).nonzero().flatten()
        assert sorted(rows[hard_views(similarity_N[rows], 3)].tolist()) == sorted(worst.tolist())


def test_losses_and_gradient_are_those_of_the_released_code(released: dict[str, Tensor]) -> None:
    rows = released["hard_indices_K3"].flatten()
    owner_B, view_BD = released["object_ids"][rows], released["flat_features"][rows].requires_grad_()
    centre_OD = released["centers"]
    value = view_loss(view_BD, owner_B, centre_OD)
    torch.testing.assert_close(value, released["released_loss_margin0p3"], atol=1e-5, rtol=0)
    (slope,) = torch.autograd.grad(value, view_BD)
    torch.testing.assert_close(slope, released["released_loss_grad"], atol=1e-5, rtol=0)
    triplet = view_loss(view_BD, owner_B, centre_OD, form="triplet")
    torch.testing.assert_close(triplet, released["triplet_loss_formula_margin0p3"], atol=1e-5, rtol=0)
    assert torch.equal(nearest_other_centre(view_BD, owner_B, centre_OD), released["nearest_other_center"])


def _at(cosine: float) -> list[float]:
    return [cosine, (1 - cosine**2) ** 0.5, 0.0]


def test_pull_is_the_distance_and_the_margin() -> None:
    centre_OD, first = torch.tensor([[1.0, 0, 0]]), torch.tensor([0])
    assert float(view_loss(torch.tensor([[1.0, 0, 0]]), first, centre_OD)) == pytest.approx(0.3)
    assert float(view_loss(torch.tensor([_at(0.8)]), first, centre_OD)) == pytest.approx(0.5)


def test_the_mean_of_triplets_is_over_those_above_zero() -> None:
    def centre_at(own: float, other: float) -> Tensor:  # cosines 1 - d of the view (1, 0, 0)
        return torch.tensor([_at(1 - own), _at(1 - other)])

    view_BD, first = torch.tensor([[1.0, 0, 0]]), torch.tensor([0])
    assert float(view_loss(view_BD, first, centre_at(0.3, 0.4), form="triplet")) == pytest.approx(0.2)
    assert float(view_loss(view_BD, first, centre_at(0.1, 0.5), form="triplet")) == 0
    both = centre_at(0.3, 0.4)
    near = torch.stack([view_BD[0], both[0]])  # the second lies on its centre, with another one near
    assert float(view_loss(near, torch.tensor([0, 0]), both, form="triplet")) == pytest.approx(
        (0.2 + max(0.0, 0.3 - (1 - float(both[0] @ both[1])))) / 2, abs=1e-5
    )


def test_the_gradient_of_pull_knows_no_margin() -> None:
    view_BD, centre_OD = unit(4, 6, 1).requires_grad_(), unit(2, 6, 2)
    slopes = [
        torch.autograd.grad(view_loss(view_BD, torch.tensor([0, 0, 1, 1]), centre_OD, margin=m), view_BD)[0]
        for m in (0.0, 0.3)
    ]
    torch.testing.assert_close(*slopes)


def test_equal_views_are_their_centre() -> None:
    view_VD = unit(1, 6, 3).expand(4, 6)
    torch.testing.assert_close(view_centre(view_VD), view_VD[0])


def test_few_views_weigh_by_all_the_others() -> None:
    lone = unit(1, 6, 4)
    assert torch.equal(view_centre(lone), lone[0])
    two = unit(2, 6, 5)
    torch.testing.assert_close(view_centre(two), two.mean(dim=0))
    assert bool(view_centre(torch.zeros(3, 6)).eq(0).all())


def test_neither_order_nor_padding_changes_a_centre() -> None:
    view_VD = unit(7, 6, 6)
    padded = torch.cat([view_VD.flip(0), torch.zeros(2, 6)])
    torch.testing.assert_close(view_centre(padded), view_centre(view_VD))


def test_hard_views_are_the_least_like_and_one_at_least() -> None:
    assert hard_views(torch.tensor([0.5, 0.1, 0.9, 0.1]), 3).tolist() == [1, 3, 0]
    assert [num_hard_views(n, 0.2) for n in (2, 5, 6)] == [1, 1, 2]
    assert num_hard_views(9, 3) == 3
