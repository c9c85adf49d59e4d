"""Locked tuning (LiT): keep one tower, or its first layers, as it is while the other learns."""

from __future__ import annotations

from types import MethodType
from typing import Any

from torch import nn

from medclip.errors import MedclipError, Reason
from medclip.models.towers.layers.layer_depth import layer_depths, tower_names

__all__ = ["layer_depths", "lock_image", "lock_text"]


def lock_image(model: nn.Module, unlocked_groups: int = 0, freeze_bn: bool = True) -> tuple[str, ...]:
    """Lock the image tower.

    Groups are counted from the top in every kind of tower: 0 locks all of it, 1 leaves the projection into the joint
    space, 2 the last block (with the last norm) too. For open_clip's ViT that is what its `lock_image_tower` does;
    that one leaves the projection of timm towers unlocked at 0, and cannot lock a part of a ResNet.

    Args:
        model: open_clip dual encoder. Changed in place: parameters are locked, none is unlocked.
        unlocked_groups: Groups at the top that learn all the same.
        freeze_bn: Keep the running statistics of locked batch normalisation too: those layers stay in evaluation mode
            whatever `model.train()` says. (open_clip swaps the layers for others, which changes the names of weights.)

    Returns:
        Names of the parameters that are locked.

    Raises:
        MedclipError: WRONG_USE when more groups shall stay unlocked than there are.

    Example:
        >>> from medclip.models.towers.build import build_clip, default_config
        >>> model = build_clip(default_config(vocab_size=300, image_tower="test_efficientnet", text_layers=1))
        >>> "visual.trunk.conv_stem.weight" in lock_image(model, unlocked_groups=1)
        True
        >>> model.visual.head.proj.weight.requires_grad
        True
    """
    locked = _lock(model, tower_names(model)[0], unlocked_groups, "image")
    if freeze_bn:
        for name, module in model.named_modules():
            own = [f"{name}.{n}" for n, _ in module.named_parameters(recurse=False)]
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and own and set(own) <= set(locked):
                module.eval()
                module.train = MethodType(_stay, module)  # type: ignore[method-assign]
    return locked


def lock_text(model: nn.Module, unlocked_layers: int = 0) -> tuple[str, ...]:
    """Lock the text tower (open_clip's own or a BERT), as `lock_image` does the image tower.

    Args:
        model: open_clip dual encoder, changed in place.
        unlocked_layers: Groups at the top that learn all the same; 1 is the projection, which has to learn when a
            language model is locked that never saw an image.

    Returns:
        Names of the parameters that are locked.

    Raises:
        MedclipError: WRONG_USE when more layers shall stay unlocked than there are.
    """
    return _lock(model, tower_names(model)[1], unlocked_layers, "text")


def _lock(model: nn.Module, names: list[str], unlocked: int, tower: str) -> tuple[str, ...]:
    depths = layer_depths(model)
    present = sorted({depths[n] for n in names})
    if not 0 <= unlocked <= len(present):
        raise MedclipError(
            Reason.WRONG_USE, f"the {tower} tower has {len(present)} groups of layers; {unlocked} cannot stay unlocked."
        )
    kept = set(present[: len(present) - unlocked])
    parameters = dict(model.named_parameters())
    locked = tuple(n for n in names if depths[n] in kept)
    for name in locked:
        parameters[name].requires_grad_(False)
    return locked


def _stay(module: Any, mode: bool = True) -> Any:
    """Take the place of `train` in a locked normalisation: evaluation mode for good."""
    return nn.Module.train(module, False)
