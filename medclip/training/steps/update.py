"""What becomes of the gradients of a step: averaged, shortened, applied, unless anything is not finite.

Whether a step counts is decided on the device, so that the host never waits for it; a step that does not count changes
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from medclip.errors import MedclipError, Reason
from medclip.training.ranks.sharding import local_of
from medclip.training.ranks.world import World
from medclip.training.steps.optimizer import MAX_LOGIT_SCALE
from medclip.training.steps.towers import Towers


@dataclass(frozen=True)
class Outcome:
    """What is known of a step once it was read back: the same on all ranks."""

    loss: float
    """Mean over the ranks."""
    norm: float
    """Of the gradient, before it was shortened."""
    counts: bool
    """False where the step was not finite, or a rank had nothing to read; it then changed nothing."""
    scale: float
    """The factor of the cosines after the step; NaN without words."""
    num_failed: int
    """Ranks whose data cannot be read on."""
    num_stopping: int
    """Ranks that were asked to stop."""
    num_bad: int
    """Samples of all ranks so far that could not be used."""

    def figures(self) -> dict[str, float]:
        """Return what the log has of a step."""
        scale = {} if math.isnan(self.scale) else {"scale": self.scale}
        return {"loss": self.loss, **scale, "grad_norm": self.norm}


def not_finite(number: int, step: int, folder: Path) -> MedclipError:
    """Return the error to end a run with after so many steps in a row that were not finite."""
    return MedclipError(
        Reason.NON_FINITE,
        f"the loss or its gradient was not finite {number} steps in a row, up to step {step}.",
        where=folder,
        hint="Lower train.lr or use precision fp32, in another folder; the last checkpoint is from before.",
    )


@runtime_checkable
class Hook(Protocol):
    """What is told of epochs and steps of a run: averaged weights, and what a loss brings."""

    def before_epoch(self, epoch: int) -> None:
        """Begin an epoch, from 0, also one that a run goes on with in its middle; batches are drawn ahead of it."""
        ...

    def after_step(self, towers: Towers, step: int, counts: Tensor) -> None:
        """Follow a step.

        Args:
            towers: The model.
            step: Number of the step, from 0.
            counts: bool scalar on the device: where False the step changed nothing, and nothing may change here.
        """
        ...


class Update:
    """Applies gradients to parameters, moments, averaged weights and running statistics.

    All that ranks must agree on travels in one small sum: loss, gradients of the loss's own parameters, the norm of
    sharded gradients and the flags.

    Args:
        towers: The model.
        world: The ranks.
        optimizer: A fused one: it takes no step where its `found_inf` is 1.
        hooks: Hooks that are told of each step.
        statistics: Running statistics that a forward pass changes.
        clip_norm: Largest norm of the gradient; None leaves it.
        copies: Number of copies of each sharded parameter (HSDP).
    """

    def __init__(
        self,
        towers: Towers,
        world: World,
        optimizer: torch.optim.Optimizer,
        hooks: Sequence[Hook],
        statistics: list[Tensor],
        *,
        clip_norm: float | None,
        copies: int = 1,
    ) -> None:
        self._towers, self._world, self._optimizer, self._hooks = towers, world, optimizer, hooks
        self._statistics, self._clip_norm, self._copies = statistics, clip_norm, copies
        self._learning: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
        self._before: list[Tensor] = []
        self._scale: Tensor | None = getattr(towers.clip, "logit_scale", None)

    def begin(self) -> None:
        """Forget the gradients, and remember what a forward pass changes."""
        self._optimizer.zero_grad(set_to_none=True)
        self._before = [s.clone() for s in self._statistics]

    @torch.no_grad()
    def apply(
        self, loss: Tensor, step: int, lr: float, *, failed: bool = False, stopping: bool = False, num_bad: int = 0
    ) -> Tensor:
        """Take a step with the gradients that are there.

        Args:
            loss: Loss of this rank, on the device.
            step: Number of the step, from 0.
            lr: Learning rate of the step.
            failed: Whether this rank has nothing to read any more.
            stopping: Whether this rank was asked to stop.
            num_bad: Samples of this rank that could not be used.

        Returns:
            float32 on the device; `read` makes `Outcome`s of several.
        """
        of_loss = [p.grad for p in self._towers.loss_parameters().values() if p.grad is not None]
        grads = [p.grad for p in self._learning if p.grad is not None]
        sharded = [local_of(g) for g in grads if local_of(g) is not g]
        plain = [g for g in grads if local_of(g) is g]
        norms = torch.nn.utils.get_total_norm(sharded) if sharded else loss.new_zeros(())
        flags = [loss.new_full((), float(x)) for x in (failed, stopping, num_bad)]
        shared = torch.stack([loss.detach(), norms.square() / self._copies, *flags, *(g.float() for g in of_loss)])
        self._world.add(shared)
        mean, squares = shared[0] / self._world.size, shared[1]
        for i, grad in enumerate(of_loss, start=5):
            grad.copy_(shared[i] / self._world.size)
        norm = torch.nn.utils.get_total_norm(plain) if plain else squares.sqrt()
        if plain and sharded:
            norm = (norm.square() + squares).sqrt()
        counts = mean.isfinite() & norm.isfinite() & (shared[2] == 0)
        if self._clip_norm is not None:
            factor = torch.clamp(self._clip_norm / (norm + 1e-6), max=1.0)
            torch._foreach_mul_([*plain, *sharded], factor)  # type: ignore[attr-defined]
        self._step(lr, counts)
        for now, before in zip(self._statistics, self._before, strict=True):
            now.copy_(torch.where(counts, now, before))
        for hook in self._hooks:
            hook.after_step(self._towers, step, counts)
        scale = self._scale.detach().exp().float() if self._scale is not None else mean.new_full((), math.nan)
        return torch.stack([mean, norm, counts.float(), scale, *shared[2:5]])

    def _step(self, lr: float, counts: Tensor) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = lr * group["factor"]
        # What torch's GradScaler sets: a fused optimizer leaves weights, moments and its count of steps as they are.
        self._optimizer.grad_scale, self._optimizer.found_inf = None, (~counts).float()  # type: ignore[attr-defined]
        self._optimizer.step()
        if (scale := self._scale) is not None:
            scale.copy_(torch.where(counts, scale.clamp(0, MAX_LOGIT_SCALE), scale))


def read(rows: list[Tensor]) -> list[Outcome]:
    """Read what several steps returned, all at once: here the host waits for the device."""
    if not rows:
        return []
    return [
        Outcome(loss, norm, counts > 0, scale, *(round(x) if math.isfinite(x) else 0 for x in flags))
        for loss, norm, counts, scale, *flags in torch.stack(rows).tolist()
    ]
