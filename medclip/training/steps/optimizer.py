"""Parameter groups, learning rate, averaged weights, and what becomes of the gradients of a step.

They are averaged, shortened and applied, unless anything is not finite. Whether a step counts is decided on the device,
so that the host never waits for it; a step that does not count changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from medclip.errors import MedclipError, Reason
from medclip.models.towers.layers import layer_depths
from medclip.training.ranks import World
from medclip.training.recipe.schema import Recipe
from medclip.training.sharding import local_of
from medclip.training.steps.towers import LOSS_PARAMETERS, Towers, weights_of

MAX_LOGIT_SCALE = math.log(100)
_EMBEDDINGS = (
    "token_embedding.weight",
    "positional_embedding",
    "class_embedding",
    "pos_embed",
    "cls_token",
    "word_embeddings.weight",
    "position_embeddings.weight",
    "token_type_embeddings.weight",
)


def learning_rate(
    step: int,
    *,
    base: float,
    warmup_steps: int,
    total_steps: int,
    schedule: Literal["cosine", "constant"] = "cosine",
    cooldown_steps: int = 0,
    floor: float = 0.0,
) -> float:
    """Return the learning rate of a step: a linear warm-up, then one of open_clip's schedules.

    Args:
        step: Number of the step, from 0.
        base: Peak of the learning rate.
        warmup_steps: Steps until the peak.
        total_steps: Steps of the run.
        schedule: Name of the schedule: "cosine" falls to the floor; "constant" stays, and falls linearly to it in the
            last steps.
        cooldown_steps: Number of last steps in which "constant" falls.
        floor: Learning rate that the schedule ends at.
    """
    if step < warmup_steps:
        return base * (step + 1) / warmup_steps
    if schedule == "constant":
        return floor + (base - floor) * min(1.0, (total_steps - step) / max(1, cooldown_steps))
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return floor + (base - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def freeze(model: nn.Module, blocks: int) -> None:
    """Keep the stem and the first blocks of a timm EfficientNet trunk as they are; 0 freezes nothing."""
    if not blocks:
        return
    trunk: Any = getattr(model.visual, "trunk", None)
    if not all(hasattr(trunk, part) for part in ("conv_stem", "bn1", "blocks")):
        raise MedclipError(
            Reason.RECIPE_INVALID,
            "model.freeze_blocks: this image tower is no EfficientNet.",
            hint="Use model.lock_image with unlocked_image_groups.",
        )
    for module in (trunk.conv_stem, trunk.bn1, *trunk.blocks[:blocks]):
        module.requires_grad_(False)


def training_mode(model: nn.Module, *, freeze_bn: bool) -> None:
    """Set a model to training mode; with `freeze_bn`, and in layers that do not learn, running statistics stay.

    A tower that does not learn at all stays in evaluation mode: no drop-out in it.
    """
    model.train()
    for tower in model.children():
        if not any(p.requires_grad for p in tower.parameters()):
            tower.eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            learns = any(p.requires_grad for p in module.parameters())
            if freeze_bn or not learns:
                module.eval()


def moving_statistics(model: nn.Module, *, freeze_bn: bool) -> list[Tensor]:
    """List the running statistics that a training step would change: empty with frozen batch normalisation."""
    training_mode(model, freeze_bn=freeze_bn)
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    return [b for m in layers for b in m.buffers()]


def make_optimizer(towers: Towers, recipe: Recipe) -> torch.optim.AdamW:
    """Make AdamW; each group has a `factor` that scales the learning rate of the step.

    Parameters are grouped by their layer's factor (image trunk, distance from the output) and by whether weight decay
    applies: not to norms, biases, the parameters of the loss and, but with `decay_embeddings`, embeddings.
    """
    t = recipe.train
    learning = {name for name, p in towers.named_parameters() if p.requires_grad}
    depths = {n: d for n, d in layer_depths(towers.clip).items() if n in learning} if t.layer_decay < 1 else {}
    groups: dict[tuple[float, bool, bool], list[Tensor]] = {}
    for name, p in (*towers.named_parameters(), *towers.loss_parameters().items()):
        if p.requires_grad:
            factor = (t.image_lr_factor if _in_trunk(name, towers) else 1.0) * _decay(
                name, depths, t.layer_decay, above=int(towers.supervised is not None)
            )
            decays = p.ndim >= 2 and (t.decay_embeddings or not name.endswith(_EMBEDDINGS))
            groups.setdefault((factor, decays, name in LOSS_PARAMETERS), []).append(p)
    parameter_groups = [
        {"params": params, "weight_decay": t.weight_decay if decays else 0.0, "factor": factor}
        for (factor, decays, _), params in sorted(groups.items(), key=lambda g: g[0])
    ]
    # Fused: one kernel for many tensors, on CPUs too, and it can leave a step out without asking the host.
    return torch.optim.AdamW(parameter_groups, lr=t.lr, betas=t.betas, eps=t.eps, fused=True)


def names_of_parameters(towers: Towers) -> dict[int, str]:
    """Return the name of each parameter by `id`; those of the loss too."""
    return {id(p): name for name, p in (*towers.named_parameters(), *towers.loss_parameters().items())}


def _in_trunk(name: str, towers: Towers) -> bool:
    """Whether a parameter came with the image tower's pre-training, and is not the projection on top."""
    if hasattr(towers.clip.visual, "trunk"):
        return name.startswith("visual.trunk.")
    return name.startswith("visual.") and name != "visual.proj"


def _decay(name: str, depths: Mapping[str, int], layer_decay: float, above: int) -> float:
    """Return the factor of a layer; `above` layers, which are no part of it, stand on the image tower."""
    if name not in depths:
        return 1.0
    tower = name.partition(".")[0]
    last = max(d for n, d in depths.items() if n.partition(".")[0] == tower) + (above if tower == "visual" else 0)
    return layer_decay ** (last - depths[name])


class Ema:
    """Exponential moving average of weights and buffers, beside the model; sharded as the model is.

    Args:
        towers: Towers, whose present state is the start.
        decay: Share of the old average kept at each update; warmed up as (1 + n) / (10 + n).
    """

    def __init__(self, towers: Towers, decay: float) -> None:
        self.decay = decay
        self.state = {k: v.detach().clone() for k, v in weights_of(towers).items()}

    def before_epoch(self, epoch: int) -> None:
        """Nothing is done."""

    @torch.no_grad()
    def after_step(self, towers: Towers, step: int, counts: Tensor) -> None:
        """Move the average towards the model after step number `step` (from 0).

        Args:
            towers: The model.
            step: Number of the step.
            counts: bool scalar on the device: False leaves the average as it is.
        """
        weight = counts * (1 - min(self.decay, (1 + step) / (10 + step)))
        moving: tuple[list[Tensor], list[Tensor]] = [], []
        for name, value in weights_of(towers).items():
            average, value = local_of(self.state[name]), local_of(value)  # the pieces of all ranks need no exchange
            if value.is_floating_point():
                moving[0].append(average)
                moving[1].append(value)
            else:
                average.copy_(value)
        torch._foreach_lerp_(*moving, [weight] * len(moving[0]))  # type: ignore[attr-defined]


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
