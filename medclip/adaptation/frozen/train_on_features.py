"""Training of what sits on frozen features by torch: Tip-Adapter's keys, CLIP-Adapter's two layers, heads of slides."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from medclip.adaptation.data.shot_features import Shots, seen
from medclip.errors import MedclipError, Reason

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


def train_epochs(
    shots: Shots,
    optimizer: Optimizer,
    forward: Callable[[Tensor], Tensor],
    *,
    epochs: int,
    batch_size: int,
    seed: int,
) -> None:
    """Train with a cosine schedule over all steps; the last epoch is the model.

    Args:
        shots: Examples to learn from.
        optimizer: Optimizer of the parameters that `forward` uses.
        forward: Logits [B, C] of features float32 [B, D].
        epochs: Passes over the rows.
        batch_size: Rows in one step.
        seed: Seed of the order of rows.

    Raises:
        MedclipError: NON_FINITE when the loss is not finite; WRONG_USE for no epochs or empty batches.
    """
    rows, targets = shots.rows(shots.train)
    if shots.multilabel:  # what only one side is known of teaches nothing
        targets = np.where(seen(shots.train.targets, len(shots.names)), targets, np.float32("nan"))
    features, truth = torch.from_numpy(rows.astype(np.float32)), torch.from_numpy(np.ascontiguousarray(targets))
    run_epochs(
        len(rows),
        optimizer,
        lambda batch: loss_of(forward(features[batch]), truth[batch]),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
    )


def run_epochs(
    num_rows: int,
    optimizer: Optimizer,
    batch_loss: Callable[[Tensor], Tensor],
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    after_epoch: Callable[[int], None] | None = None,
) -> None:
    """Pass over rows in random order, with a cosine schedule over all steps that ends at 0.

    Args:
        num_rows: Number of rows.
        optimizer: Optimizer of what learns.
        batch_loss: Loss of some rows, named by their numbers.
        epochs: Passes over the rows.
        batch_size: Rows in one step.
        seed: Seed of the order of rows.
        after_epoch: Function called with the number of each epoch, from 1.

    Raises:
        MedclipError: NON_FINITE when the loss is not finite; WRONG_USE for no epochs or empty batches.
    """
    if epochs < 1 or batch_size < 1:
        raise MedclipError(Reason.WRONG_USE, f"{epochs} epochs of batches of {batch_size}: both take at least 1.")
    steps = -(-num_rows // batch_size)
    schedule: LRScheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    rng = np.random.default_rng(seed)
    for epoch in range(1, epochs + 1):
        order = torch.from_numpy(rng.permutation(num_rows))
        for batch in order.split(batch_size):
            loss = batch_loss(batch)
            if not torch.isfinite(loss):
                raise MedclipError(
                    Reason.NON_FINITE, f"the loss of epoch {epoch} is not finite.", hint="Try a smaller learning rate."
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if after_epoch is not None:
            after_epoch(epoch)


def loss_of(logits_BC: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy; multi-label: the mean binary one over what is known (0 where nothing is)."""
    if targets.ndim == 1:
        return cross_entropy(logits_BC, targets)
    has_answer = ~torch.isnan(targets)
    if not has_answer.any():
        return logits_BC.sum() * 0
    return binary_cross_entropy_with_logits(logits_BC[has_answer], targets[has_answer])
