"""Views of one examination become one vector."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from medclip.errors import MedclipError, Reason
from medclip.models.towers.build import build_clip
from medclip.models.towers.view_fusion import FusionKind, ViewFusion
from medclip.sample import ViewType

KINDS = get_args(FusionKind)
EXAM = (ViewType("R", "CC"), ViewType("L", "CC"), ViewType("R", "MLO"), ViewType("L", "MLO"))


def _views(batch: int, views: int, dim: int = 8, seed: int = 0) -> Tensor:
    return normalize(torch.randn(batch, views, dim, generator=torch.Generator().manual_seed(seed)), dim=-1)


def _fusion(kind: Any, dim: int = 8) -> ViewFusion:
    """Return one as if it had learned: all weights are other than at the start."""
    torch.manual_seed(3)
    fusion = ViewFusion(dim, kind)
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return fusion


def _there(*rows: str) -> Tensor:
    return torch.tensor([[mark == "x" for mark in row] for row in rows])


@pytest.mark.parametrize("kind", KINDS)
def test_it_begins_as_the_unit_mean_of_the_views_that_are_there(kind: FusionKind) -> None:
    torch.manual_seed(1)
    fusion, views, there = ViewFusion(8, kind), _views(3, 4), _there("xxxx", "xx..", "..x.")
    fused, shares = fusion(views, fusion.types(EXAM).expand(3, -1, -1), there)
    for row, present in enumerate(there):
        torch.testing.assert_close(fused[row], normalize(views[row, present].sum(0), dim=0))
        torch.testing.assert_close(shares[row], present / present.sum())


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_the_views_makes_no_difference(kind: FusionKind) -> None:
    fusion, views, types, there = _fusion(kind), _views(2, 4), ViewFusion(8).types(EXAM), _there("xxxx", "xx.x")
    fused, shares = fusion(views, types.expand(2, -1, -1), there)
    for order in itertools.permutations(range(4)):
        again, moved = fusion(views[:, order], types[list(order)].expand(2, -1, -1), there[:, order])
        torch.testing.assert_close(again, fused)
        torch.testing.assert_close(moved, shares[:, order])


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_where_no_view_is_changes_nothing_and_gets_no_gradient(kind: FusionKind) -> None:
    fusion, views, types = _fusion(kind), _views(1, 4).requires_grad_(), ViewFusion(8).types(EXAM)[None]
    there = _there("x.x.")
    fused, shares = fusion(views, types, there)
    nonsense = views.detach().clone()
    nonsense[:, 1], nonsense[:, 3] = torch.nan, 7.0
    other_types = types.clone()
    other_types[:, 1], other_types[:, 3] = -1, 2
    again, same = fusion(nonsense, other_types, there)
    assert torch.equal(again, fused)
    assert torch.equal(same, shares)
    alone, _ = fusion(views[:, ::2], types[:, ::2], _there("xx"))
    torch.testing.assert_close(alone, fused)
    fused[0, 0].backward()
    assert views.grad is not None
    assert not views.grad[0, there[0].logical_not()].any()
    assert views.grad[0, there[0]].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_without_any_view_gives_zeros_and_finite_gradients(kind: FusionKind) -> None:
    fusion, views = _fusion(kind), _views(2, 2).requires_grad_()
    fused, shares = fusion(views, fusion.types(EXAM[:2]).expand(2, -1, -1), _there("..", "xx"))
    assert not fused[0].any()
    assert not shares[0].any()
    torch.testing.assert_close(fused[1].norm(), torch.tensor(1.0))
    fused.sum().backward()
    assert views.grad is not None
    assert views.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in fusion.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", ["attention", "concat"])
def test_the_same_image_counts_otherwise_as_another_view(kind: FusionKind) -> None:
    fusion, views = _fusion(kind), _views(1, 2)
    seen = []
    for types in (("R", "CC"), ("L", "CC"), ("R", "MLO"), ("R", "CC", "subtracted"), ("", "CC"), ("R", "ML")):
        fused, shares = fusion(views, fusion.types([ViewType(*types), ViewType("L", "MLO")])[None], _there("xx"))
        torch.testing.assert_close(shares.sum(), torch.tensor(1.0))
        seen.append(fused[0].detach())
    distances = [float((a - b).norm()) for a, b in itertools.combinations(seen, 2)]
    # Concatenation has one place for all views that are none of an examination's: the last two are alike in it.
    assert sorted(distances)[0 if kind == "attention" else 1] > 1e-3


def test_two_views_of_one_place_count_as_their_mean_where_places_are_concatenated() -> None:
    fusion, views = _fusion("concat"), _views(1, 3)
    types = fusion.types([EXAM[0], EXAM[0], EXAM[3]])
    fused, shares = fusion(views, types[None], _there("xxx"))
    joined = torch.stack([views[0, :2].mean(0), views[0, 2]])[None]
    torch.testing.assert_close(fused, fusion(joined, types[None, 1:], _there("xx"))[0])
    torch.testing.assert_close(shares[0, 0], shares[0, 1])


def test_a_model_is_built_with_it_from_its_config_and_refuses_a_wrong_one() -> None:
    vision = {"image_size": 32, "timm_model_name": "test_vit", "timm_pool": "avg"}
    config = {"vision_cfg": vision, "fusion": ViewFusion(8, "concat", kinds=("standard",)).to_config()}
    fusion = build_clip(config).get_submodule("fusion")
    assert isinstance(fusion, ViewFusion)
    assert fusion.to_config() == config["fusion"]
    for wrong in ({"kind": "sum"}, {"heads": 3}, "attention", {"kind": "mean", "sides": []}):
        with pytest.raises(MedclipError) as caught:
            build_clip(config | {"fusion": wrong})
        assert caught.value.reason is Reason.PACK_INVALID
