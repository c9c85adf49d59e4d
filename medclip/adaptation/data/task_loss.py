"""The loss of a task over logits, the order of its batches, and one small training loop for a few learned vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from medclip.errors import MedclipError, Reason

WARM_UP_LR = 1e-5
"""Of the first epoch, as in CoOp."""
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4


def targets_of(targets: NDArray, device: torch.device) -> Tensor:
    """Return int64 [N] classes, or float32 [N, C] with NaN where nobody knows, as a tensor of its own."""
    kind = np.float32 if targets.ndim == 2 else np.int64
    return torch.tensor(np.asarray(targets, kind), device=device)


def task_loss(logits_NC: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over classes, or the mean binary cross-entropy over what is known.

    Args:
        logits_NC: float [N, C].
        targets: int64 [N], or float [N, C] with NaN for unknown.

    Returns:
        A scalar; 0 where nothing is known, with gradients of 0.
    """
    if targets.ndim == 1:
        return cross_entropy(logits_NC, targets)
    known = ~targets.isnan()
    each = binary_cross_entropy_with_logits(logits_NC, targets.nan_to_num(), reduction="none")
    return torch.where(known, each, 0.0).sum() / known.sum().clamp(min=1)


def finite(loss: Tensor, method: str) -> Tensor:
    """Return the loss back.

    Raises:
        MedclipError: NON_FINITE when it is no number; it is never replaced by another.
    """
    if not bool(torch.isfinite(loss)):
        raise MedclipError(
            Reason.NON_FINITE,
            f"the loss of {method} became {float(loss.detach())}.",
            hint="Take a smaller learning rate; if it is so at the first step, look for damaged examples.",
        )
    return loss


def task_logits(features_ND: Tensor, text_RD: Tensor, scale: float, num_classes: int) -> Tensor:
    """Return a·cos(f, g), or a·(cos(f, g⁺) − cos(f, g⁻)) where the text has a denial of each class too.

    Args:
        features_ND: Unit norm.
        text_RD: Unit norm; C rows, or C rows and those that deny them.
        scale: Factor of the cosines, a.
        num_classes: Number of classes, C.
    """
    cosines_NR = features_ND @ text_RD.T
    if len(text_RD) > num_classes:
        cosines_NR = cosines_NR[:, :num_classes] - cosines_NR[:, num_classes:]
    return scale * cosines_NR


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the rows of one epoch in an order drawn from `generator`, `size` at a time; the last batch may be short."""
    yield from torch.randperm(count, generator=generator).split(size)


def epoch_rates(lr: float, epochs: int) -> list[float]:
    """Return the rate of every epoch, as the toolbox of CoOp and its kin (Dassl) has them: 1e-5, then a cosine.

    The cosine starts when the warm-up ends, so that it does not quite reach its floor.

    Example:
        >>> [round(rate, 6) for rate in epoch_rates(0.002, 4)]
        [1e-05, 0.002, 0.001707, 0.001]
    """
    return [WARM_UP_LR, *(0.5 * lr * (1 + math.cos(math.pi * n / epochs)) for n in range(epochs - 1))]


def learn(
    parameters: Sequence[nn.Parameter],
    loss_of: Callable[[Tensor], Tensor],
    count: int,
    *,
    method: str,
    epochs: int,
    batch_size: int,
    lr: float,
    generator: torch.Generator,
) -> None:
    """Train with SGD as CoOp does: momentum 0.9, weight decay 5e-4, the rates of `epoch_rates`.

    Args:
        parameters: Parameters that learn.
        loss_of: Function that returns the loss of some rows.
        count: Number of rows.
        method: Name of the method, for errors.
        epochs: Passes over the rows.
        batch_size: Rows in a step.
        lr: Peak of the learning rate.
        generator: Generator of the order.

    Raises:
        MedclipError: NON_FINITE for a loss that is no number, WRONG_USE for counts below 1.
    """
    if epochs < 1 or batch_size < 1:
        raise MedclipError(Reason.WRONG_USE, f"{method} takes at least one epoch and one row in a batch.")
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    for rate in epoch_rates(lr, epochs):
        optimizer.param_groups[0]["lr"] = rate
        for rows in batches(count, batch_size, generator):
            loss = finite(loss_of(rows), method)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
