"""Parameter groups, learning rate, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medclip.errors import MedclipError, Reason
from medclip.models.towers.layers import layer_depths
from medclip.training.ranks.sharding import local_of
from medclip.training.recipe.schema import Recipe
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
    """Put a model into training mode; with `freeze_bn`, and in layers that do not learn, running statistics stay.

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
