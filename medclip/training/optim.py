"""Parameter groups, learning rate, averaged weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from medclip.training.recipe import Recipe

MAX_LOGIT_SCALE = math.log(100)


def learning_rate(step: int, *, base: float, warmup_steps: int, total_steps: int) -> float:
    """Linear warm-up to `base`, then a cosine to zero (open_clip's form).

    Args:
        step: Counted from 0.
        base: Peak.
        warmup_steps: Steps until the peak.
        total_steps: Steps of the run.
    """
    if step < warmup_steps:
        return base * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return base * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def freeze(model: nn.Module, blocks: int) -> None:
    """Keep the stem and the first blocks of a timm EfficientNet trunk as they are; 0 freezes nothing."""
    if not blocks:
        return
    trunk: Any = model.visual.trunk  # type: ignore[union-attr]
    for module in (trunk.conv_stem, trunk.bn1, *trunk.blocks[:blocks]):
        module.requires_grad_(False)


def training_mode(model: nn.Module, *, freeze_bn: bool) -> None:
    """Put a model into training mode; with `freeze_bn`, and in layers that do not learn, running statistics stay."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            learns = any(p.requires_grad for p in module.parameters())
            if freeze_bn or not learns:
                module.eval()


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """Make AdamW with four groups: trunk or rest, with or without weight decay; `factor` scales the learning rate."""
    t = recipe.train
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            groups.setdefault((name.startswith("visual.trunk."), _decays(name, p)), []).append(p)
    made = [
        {
            "params": params,
            "weight_decay": t.weight_decay if decays else 0.0,
            "factor": t.image_lr_factor if in_trunk else 1.0,
        }
        for (in_trunk, decays), params in sorted(groups.items())
    ]
    return torch.optim.AdamW(made, lr=t.lr, betas=t.betas, eps=t.eps)


def _decays(name: str, p: Tensor) -> bool:
    return p.ndim >= 2 and not name.endswith(("token_embedding.weight", "positional_embedding"))


class Ema:
    """Exponential moving average of weights and buffers, beside the model.

    Args:
        model: Its present state is the start.
        decay: Share of the old average kept at each update; warmed up as (1 + n) / (10 + n).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the model after step number `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)
