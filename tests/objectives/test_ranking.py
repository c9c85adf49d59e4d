"""The ranking adapter's loss equals the published code's values, and leaves ties out where it may."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medclip.objectives.ranking import pair_ranking_loss, ranking_loss
from tests.kits.objectives import check_golden

TERMS = {
    "rank": ("rank",),
    "regression": ("regression",),
    "bce": ("presence",),
    "regression_rank": ("regression", "rank"),
    "bce_regression_rank": ("presence", "regression", "rank"),
}


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("heads", ["dual", "single"])
def test_the_loss_is_that_of_the_published_code(name: str, heads: str, golden: Path) -> None:
    with np.load(golden / "ranking_adapter.npz") as g:
        target_N, score_N = torch.tensor(g["targets"]), torch.tensor(g["pred"])[:, 0]
        pair_NN = torch.tensor(g["paired_logits"]).reshape(6, 6) if heads == "dual" else None
        value = ranking_loss(score_N, target_N, pair_NN, terms=TERMS[name], ties="upstream")
        check_golden(value, g[f"{heads}_{name}"])


def test_pairs_of_one_amount_teach_nothing() -> None:
    target_N, pair_NN = torch.tensor([1.0, 1.0, 2.0]), torch.zeros(3, 3, requires_grad=True)
    (slope_NN,) = torch.autograd.grad(pair_ranking_loss(pair_NN, target_N), pair_NN)
    assert (slope_NN == 0).tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    assert slope_NN[2, 0] < 0 < slope_NN[0, 2]
    assert float(pair_ranking_loss(torch.randn(2, 2), torch.ones(2))) == 0
