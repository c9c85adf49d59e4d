"""The additive hazard head and its loss: golden values of Mirai, and what censoring may not change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medclip.errors import MedclipError, Reason
from medclip.objectives.hazard import AdditiveHazard, hazard_targets, masked_hazard_loss

NONE = np.nan


@pytest.mark.golden
def test_golden_logits_targets_and_loss(golden: Path) -> None:
    with np.load(golden / "mv_mlm_risk_head_and_cindex.npz") as g:
        head = AdditiveHazard(12, 5)
        names = {"base": "base_hazard_fc", "hazard": "hazard_fc"}
        weights = {
            f"{own}.{part}": g[f"sd/{name}.{part}"] for own, name in names.items() for part in ("weight", "bias")
        }
        head.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
        logits = head(torch.from_numpy(g["x"])).detach()
        np.testing.assert_allclose(logits, g["logit"], atol=1e-5, rtol=1e-4)
        # upstream counts whole years from 0; a follow-up of t + 1 years reaches the end of year t
        months = 12.0 * (g["time_at_event"] + 1)
        truth, mask = hazard_targets(np.where(g["event"] == 1, months, NONE), months, 5)
        np.testing.assert_array_equal(truth, g["y_seq"])
        np.testing.assert_array_equal(mask, g["y_mask"])
        assert float(masked_hazard_loss(logits, truth, mask)) == pytest.approx(float(g["loss"]), abs=1e-5)


@pytest.mark.parametrize(
    ("event", "followup", "truth", "known"),
    [
        (0, 60, [1, 1, 1], [1, 1, 1]),
        (12, 12, [1, 1, 1], [1, 1, 1]),  # the end of a year belongs to it
        (13, 13, [0, 1, 1], [1, 1, 1]),
        (40, 60, [0, 0, 0], [1, 1, 1]),  # later than the last year: all of them were free of it
        (14, NONE, [0, 1, 1], [1, 1, 1]),
        (NONE, 36, [0, 0, 0], [1, 1, 1]),
        (NONE, 35, [0, 0, 0], [1, 1, 0]),
        (NONE, 11, [0, 0, 0], [0, 0, 0]),
        (NONE, NONE, [0, 0, 0], [0, 0, 0]),
    ],
)
def test_what_is_known_of_each_year(event: float, followup: float, truth: list[int], known: list[int]) -> None:
    truth_BK, mask_BK = hazard_targets([event], [followup], 3)
    assert (truth_BK[0].tolist(), mask_BK[0].tolist()) == (truth, known)


@pytest.mark.parametrize(
    ("event", "followup", "words"),
    [(20, 14, "event at 20 months.*follow-up of 14"), (-1, 14, "event of -1 months"), (NONE, -3, "follow-up of -3")],
)
def test_times_that_contradict_each_other_are_refused(event: float, followup: float, words: str) -> None:
    with pytest.raises(MedclipError, match=words) as caught:
        hazard_targets([5, event], [60, followup], 5)
    assert caught.value.reason == Reason.WRONG_USE


def test_the_risk_never_falls_from_year_to_year() -> None:
    torch.manual_seed(0)
    logits = AdditiveHazard(8, 5)(torch.randn(200, 8) * 5)
    assert (logits.diff(dim=1) >= 0).all()
    assert (logits.diff(dim=1) > 0).any()


def test_years_beyond_censoring_change_neither_loss_nor_gradient() -> None:
    torch.manual_seed(0)
    truth, mask = hazard_targets([NONE, 14, NONE], [24, 20, 5], 5)
    logits = torch.randn(3, 5, requires_grad=True)
    other = torch.where(mask > 0, logits.detach(), torch.inf).requires_grad_()
    losses = [masked_hazard_loss(values, truth, mask) for values in (logits, other)]
    assert torch.equal(losses[0], losses[1])
    losses[0].backward()
    assert logits.grad is not None
    assert ((logits.grad != 0) == (mask > 0)).all()


def test_parts_of_a_batch_add_up_and_a_batch_of_nothing_is_0() -> None:
    torch.manual_seed(0)
    truth, mask = hazard_targets([NONE, 14, NONE, 2], [24, 20, 5, 2], 5)
    logits = torch.randn(4, 5)
    parts = [
        masked_hazard_loss(logits[at], truth[at], mask[at], num_years_known=mask.sum())
        for at in (slice(1), slice(1, 4))
    ]
    assert float(sum(parts)) == pytest.approx(float(masked_hazard_loss(logits, truth, mask)), rel=1e-6)
    nothing = torch.randn(1, 5, requires_grad=True)
    loss = masked_hazard_loss(nothing, truth[2:3], mask[2:3])
    loss.backward()
    assert not loss.item()
    assert nothing.grad is not None
    assert not nothing.grad.any()
