"""Locked tuning (LiT): keep one tower, or its first layers, as it is while the other learns; how deep a layer lies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MethodType
from typing import Any

from torch import nn

from medclip.errors import MedclipError, Reason

_LOSS = ("logit_scale", "logit_bias")
_BLOCK = re.compile(r"(?:resblocks\.|layers\.|block\.|layer\.?)(\d+)\.")
"""A block of a transformer in the names of open_clip, BERT, RoBERTa, T5 and M2M, or a stage of CLIP's ResNet."""
_HEAD = ("proj", "text_projection", "head", "pooler", "attn_pool", "attnpool")
_TEXT_NAMES = ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection", "cls_emb")
"""First parts of the names of a text tower that has no module of its own (open_clip's CLIP)."""


def lock_image(model: nn.Module, unlocked_groups: int = 0, freeze_bn: bool = True) -> tuple[str, ...]:
    """Lock the image tower.

    Groups are counted from the top in every kind of tower: 0 locks all of it, 1 leaves the projection into the joint
    space, 2 the last block (with the last norm) too. For open_clip's ViT that is what its `lock_image_tower` does;
    that one leaves the projection of timm towers unlocked at 0, and cannot lock a part of a ResNet.

    Args:
        model: open_clip dual encoder. Changed in place: parameters are locked, none is unlocked.
        unlocked_groups: Groups at the top that learn all the same.
        freeze_bn: Whether the running statistics of locked batch normalisation are kept too: those layers stay in
            evaluation mode whatever `model.train()` says. (open_clip swaps the layers for others, which changes the
            names of weights.)

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


def layer_depths(model: nn.Module) -> dict[str, int]:
    """Return the depth of every parameter of both towers: 0 the stem, the highest number the projection.

    Layer-wise learning-rate decay (the rate of depth d is base * decay ** (n - d)) and partly locked towers count in
    it. The groups are open_clip's and timm's own: embeddings and patches, then one for each block, the last norm with
    the last block, then the head.

    Args:
        model: open_clip CLIP or CustomTextCLIP, with any image tower and any text tower. Towers of an unknown layout
            count the modules at their top in the order of registration.

    Returns:
        Parameter name to depth, each tower from 0 to its own n. `logit_scale` and `logit_bias` belong to no tower and
        are not in it.
    """
    image, text = tower_names(model)
    visual: Any = getattr(model, "visual", None)
    depths: dict[str, int] = {}
    if hasattr(visual, "trunk"):
        depths |= {f"visual.{n}": d for n, d in _timm(visual).items()}
    else:
        depths |= _tower(image, "visual.")
    return depths | _tower(text, "text." if hasattr(model, "text") else "")


def tower_names(model: nn.Module) -> tuple[list[str], list[str]]:
    """Return the names of the image tower's and of the text tower's parameters."""
    names = [n for n, _ in model.named_parameters() if n not in _LOSS]
    image = [n for n in names if n.startswith("visual.")]
    inside = ("text",) if hasattr(model, "text") else _TEXT_NAMES
    return image, [n for n in names if n.partition(".")[0] in inside]


def _tower(names: Iterable[str], prefix: str) -> dict[str, int]:
    """Count blocks where there are any, else the modules at the top."""
    short = {n: n.removeprefix(prefix) for n in names}
    blocks = {n: int(m[1]) for n, s in short.items() if (m := _BLOCK.search(s))}
    if not blocks:
        return _by_order(short)
    depths = {n: _depth(s, blocks.get(n), max(blocks.values()) + 1) for n, s in short.items()}
    rank = {depth: place for place, depth in enumerate(sorted(set(depths.values())))}  # stages count from 1
    return {n: rank[depth] for n, depth in depths.items()}


def _depth(name: str, block: int | None, last: int) -> int:
    if block is not None:
        return block + 1
    parts = name.split(".")
    if any(part in _HEAD for part in parts[:2]):
        return last + 1
    after = parts[0] in ("ln_post", "ln_final") or parts[-2:-1] in (["final_layer_norm"], ["layer_norm"])
    return last if after else 0


def _by_order(short: Mapping[str, str]) -> dict[str, int]:
    places: dict[str, int] = {}
    return {n: places.setdefault(s.partition(".")[0], len(places)) for n, s in short.items()}


def _timm(visual: Any) -> dict[str, int]:
    """Take timm's own groups of the trunk; the projection on top is one more."""
    from timm.models import group_parameters

    trunk = visual.trunk
    try:
        groups: Any = group_parameters(trunk, trunk.group_matcher(), reverse=True)
    except (AttributeError, NotImplementedError, TypeError, AssertionError):  # few towers have no matcher
        groups = _by_order({n: n for n, _ in trunk.named_parameters()})
    depths = {f"trunk.{name}": int(depth) for name, depth in groups.items()}
    top = 1 + max(depths.values(), default=-1)
    head = getattr(visual, "head", None)  # an image tower alone has none
    return depths | ({} if head is None else {f"head.{n}": top for n, _ in head.named_parameters()})
