from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from medclip.adaptation.data.task_loss import batches, epoch_rates, finite, learn, targets_of, task_logits, task_loss
from medclip.errors import MedclipError, Reason

CPU = torch.device("cpu")


def test_classes_are_taken_by_cross_entropy() -> None:
    logits, targets = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2, 1, 1, 0])
    torch.testing.assert_close(task_loss(logits, targets), cross_entropy(logits, targets))


def test_unknown_answers_cost_nothing_and_the_rest_are_averaged() -> None:
    logits = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = targets_of(np.array([[1, 0], [np.nan, 1], [0, np.nan], [1, 1]], np.float32), CPU)
    known = ~targets.isnan()
    loss = task_loss(logits, targets)
    torch.testing.assert_close(loss, binary_cross_entropy_with_logits(logits[known], targets[known]))
    loss.backward()
    assert logits.grad is not None
    assert float(logits.grad[~known].abs().max()) == 0.0
    nothing = task_loss(logits, torch.full((4, 2), float("nan")))
    assert float(nothing.detach()) == 0.0


def test_denials_are_subtracted() -> None:
    features, text = torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert task_logits(features, text, 10.0, 2).tolist() == [[10.0, 0.0], [0.0, 10.0]]
    assert task_logits(features, text, 10.0, 1).tolist() == [[10.0], [-10.0]]


def test_every_row_comes_once_in_an_epoch() -> None:
    parts = list(batches(10, 4, torch.Generator().manual_seed(1)))
    assert [len(p) for p in parts] == [4, 4, 2]
    assert sorted(torch.cat(parts).tolist()) == list(range(10))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_an_error(bad: float) -> None:
    with pytest.raises(MedclipError, match="the loss of CoOp became") as e:
        finite(torch.tensor(bad), "CoOp")
    assert e.value.problem().reason is Reason.NON_FINITE


def test_the_small_loop_learns_and_its_first_epoch_hardly_moves() -> None:
    def train(epochs: int) -> float:
        w = nn.Parameter(torch.zeros(1))
        learn(
            [w],
            lambda rows: (w - rows.float().mean()).square().sum(),
            8,
            method="it",
            epochs=epochs,
            batch_size=8,
            lr=0.1,
            generator=torch.Generator().manual_seed(0),
        )
        return float(w.detach())

    assert 0 < train(1) < 1e-3
    assert train(60) == pytest.approx(3.5, abs=0.1)


def test_rates_of_epochs_are_those_of_torchs_cosine_after_one_epoch_of_warm_up() -> None:
    """Dassl starts its cosine when the warm-up ends, and gives it the whole number of epochs."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.002)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10.0)
    expected = [1e-5]
    for _ in range(9):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        cosine.step()
    assert epoch_rates(0.002, 10) == pytest.approx(expected)
    assert epoch_rates(0.002, 10)[1] == 0.002
