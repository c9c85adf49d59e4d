"""Experts averaged in training: some feed-forward layers of a vision transformer are several, and one in the pack.

There is no gate. In a step the tokens of a batch are dealt to the experts of a layer at random and evenly, each expert
learns from its part, and then all are pulled towards their mean. For validation, and in the pack, a layer is the mean
of its experts.

The deal of a step depends on the run's seed, the step, the rank and the layer, and on nothing that was drawn before: a
block that is computed again for its gradients deals as it did.

Reference: Huang et al., Experts Weights Averaging: a new general training scheme for vision transformers, 2023. No code
of it is public; the formulas of the update and its schedule are a reconstruction.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from medclip.errors import MedclipError, Reason
from medclip.training.recipe.model import ExpertsPart
from medclip.training.sharding import local_of
from medclip.training.steps.towers import Towers

_BLOCK = re.compile(r"(?:^|\.)(?:blocks|resblocks)\.\d+$")
_EXPERT = re.compile(r"^(.*\.mlp)\.experts\.(\d+)\.(.*)$")


class Experts(nn.Module):
    """Feed-forward layers in the place of one.

    Args:
        layer: The layer that stood there.
        count: Number of experts.
        number: Number of the layer among those that were replaced, from 0.
        alike: Whether all begin as the layer, as for fine-tuning; otherwise the others are drawn anew, each weight with
            the mean and spread of the layer's.
    """

    def __init__(self, layer: nn.Module, count: int, number: int, *, alike: bool) -> None:
        super().__init__()
        self.experts = nn.ModuleList([layer, *(copy.deepcopy(layer) for _ in range(count - 1))])
        self.number = number
        if not alike:
            for expert in self.experts[1:]:
                for value in expert.parameters():
                    if value.ndim > 1:
                        nn.init.normal_(value, float(value.detach().mean()), float(value.detach().std()))

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Send each token through one expert in training, and through the mean of all otherwise.

        Raises:
            MedclipError: WRONG_USE for fewer tokens than experts.
        """
        if not self.training:
            return functional_call(self.experts[0], self.averaged(), (x_BLD,))
        x_nD, count = x_BLD.flatten(0, -2), len(self.experts)
        if len(x_nD) < count:
            raise MedclipError(
                Reason.WRONG_USE,
                f"{len(x_nD)} tokens are dealt to {count} experts, so that some would learn nothing.",
                hint="Take fewer experts (model.experts.count), or larger parts (train.micro_batch).",
            )
        order_n = self.deal(len(x_nD), torch.initial_seed()).to(x_nD.device)
        parts = zip(self.experts, x_nD[order_n].tensor_split(count), strict=True)
        y_nD = torch.cat([expert(part) for expert, part in parts])
        return torch.empty_like(y_nD).index_copy(0, order_n, y_nD).view_as(x_BLD)

    def deal(self, num_tokens: int, seed: int) -> Tensor:
        """Return the order in which tokens are cut into parts of sizes that differ by one at most, int64 [n]."""
        generator = torch.Generator().manual_seed((seed + 1_000_003 * (self.number + 1)) % 2**63)
        return torch.randperm(num_tokens, generator=generator)

    def averaged(self) -> dict[str, Tensor]:
        """Return the mean of the experts' weights, by the names of one."""
        every = [dict(expert.named_parameters()) for expert in self.experts]
        return {name: torch.stack([one[name] for one in every]).mean(dim=0) for name in every[0]}


def place_experts(visual: nn.Module, settings: ExpertsPart, *, alike: bool) -> None:
    """Replace feed-forward layers of a vision transformer, in place.

    Args:
        visual: Image tower.
        settings: Number of experts, and the blocks that have them.
        alike: Whether the tower has learned already, see `Experts`.

    Raises:
        MedclipError: RECIPE_INVALID for a tower without such blocks.
    """
    named = [(name, module) for name, module in visual.named_modules() if _BLOCK.search(name)]
    blocks: list[Any] = [module for _, module in named if isinstance(getattr(module, "mlp", None), nn.Module)]
    chosen = blocks[settings.every - 1 :: settings.every]
    if not chosen:
        raise MedclipError(
            Reason.RECIPE_INVALID,
            f"model.experts: this image tower has {len(blocks)} transformer blocks, of which none is every "
            f"{settings.every}.",
            hint="Take a vision transformer, and a smaller model.experts.every.",
        )
    for number, block in enumerate(chosen):
        block.mlp = Experts(block.mlp, settings.count, number, alike=alike)


def pull_together(values_EX: Tensor, share: Tensor | float, others: bool = True) -> Tensor:
    """Move values of E experts towards their mean, which stays.

    Args:
        values_EX: One row for each expert.
        share: Share of the others' mean (with `others`) or of the mean of all in the new value; 1 − 1/E of the others
            makes all alike.
        others: Whether the share is of the mean of the other experts, as the paper has it.

    Example:
        >>> pull_together(torch.tensor([[0.0], [2.0], [4.0], [6.0]]), 0.3).flatten().tolist()
        [1.2000000476837158, 2.4000000953674316, 3.5999999046325684, 4.800000190734863]
    """
    num = len(values_EX)
    factor = share * (num / (num - 1)) if others else share
    return values_EX + factor * (values_EX.mean(dim=0, keepdim=True) - values_EX)


class ExpertsHook:
    """Pulls the experts of a run together after each step.

    Args:
        settings: The share at the end of the run, and how it grows.
        total_steps: Number of steps of the run.
    """

    def __init__(self, settings: ExpertsPart, total_steps: int) -> None:
        self._settings, self._total = settings, total_steps

    def share(self, step: int) -> float:
        """Return the share after so many steps: growing from 0 in a line, or the same always."""
        if self._settings.schedule == "constant":
            return self._settings.share
        return self._settings.share * step / self._total

    def before_epoch(self, epoch: int) -> None:
        """Nothing is done."""

    @torch.no_grad()
    def after_step(self, towers: Towers, step: int, counts: Tensor) -> None:
        """Pull them together after step number `step` (from 0); where `counts` is False nothing moves."""
        share = counts * self.share(step + 1)
        for module in towers.modules():
            if isinstance(module, Experts):
                for same in zip(*(expert.parameters() for expert in module.experts), strict=True):
                    values = [local_of(value) for value in same]  # all are cut alike, so that pieces need no exchange
                    moved = pull_together(torch.stack([value.detach() for value in values]), share)
                    for value, new in zip(values, moved, strict=True):
                        value.copy_(new)


def fold_experts(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a plain tower: the mean of experts under the name of the layer that they stood for."""
    folded: dict[str, Tensor] = {}
    several: dict[str, list[Tensor]] = {}
    for name, value in weights.items():
        match = _EXPERT.match(name)
        if match is None:
            folded[name] = value
        else:
            several.setdefault(f"{match[1]}.{match[3]}", []).append(value)
    return folded | {name: torch.stack(values).mean(dim=0) for name, values in several.items()}
