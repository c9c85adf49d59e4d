"""The layers of both towers that can be adapted: where each lies and what it does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn

from medclip.adaptation.towers.svd_linear import SVDLinear
from medclip.errors import MedclipError, Reason, did_you_mean

Tower = Literal["image", "text"]
Role = Literal["q", "k", "v", "out", "mlp", "conv", "head"]
Which = Literal["all", "top", "middle", "bottom"]

_BLOCK = re.compile(r"(?:^|\.)(?:resblocks|blocks|layers?|stages|block|layer\d)\.\d+(?=\.)")
"""What a numbered block is called by open_clip, timm and transformers; towers in stages number on both levels."""
_ROLES: tuple[tuple[Role, tuple[str, ...]], ...] = (
    ("q", ("q_proj", "query", "q")),
    ("k", ("k_proj", "key", "k")),
    ("v", ("v_proj", "value", "v")),
)


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer with a matrix."""

    name: str
    """Path of the module in the model, attention split."""
    tower: Tower
    block: int | None
    """Counted from the input, through all stages; None outside the blocks (stem, projection, pooling)."""
    role: Role
    module: nn.Module


def list_layers(clip: nn.Module) -> tuple[Layer, ...]:
    """List every linear layer and every pointwise convolution of a model whose attention is split.

    Args:
        clip: open_clip CLIP or CustomTextCLIP after `split_attention`, decomposed or not.

    Returns:
        In the order of the model. Matrices that are no layers (CLIP's `visual.proj`, `text_projection`) are not in it.
    """
    modules = [(n, m) for n, m in clip.named_modules() if _has_matrix(m)]
    numbers: dict[tuple[Tower, str], int] = {}
    count = {"image": 0, "text": 0}
    layers = []
    for name, module in modules:
        tower: Tower = "image" if name.startswith("visual.") else "text"
        place = block_of(name)
        if place is not None and (tower, place) not in numbers:
            numbers[tower, place] = count[tower]
            count[tower] += 1
        block = None if place is None else numbers[tower, place]
        layers.append(Layer(name, tower, block, _role(name, module, block), module))
    return tuple(layers)


def choose_layers(
    layers: Sequence[Layer], which: str | int | Sequence[int] = "all", roles: Role | Sequence[Role] | None = None
) -> tuple[Layer, ...]:
    """Choose layers to train.

    Args:
        layers: Layers from `list_layers`.
        which: all, or thirds of each tower's blocks: top, middle, bottom (of 12 blocks 8 to 11, 4 to 7, 0 to 3), or
            several joined by "+" as in "top+middle"; or a block's number, several of them, or "10,11".
        roles: Roles of layers, one or several; everything where None.

    Returns:
        In the order given. Layers outside the blocks, and projections into the joint space, are never in it.

    Raises:
        MedclipError: WRONG_USE for an unknown word, a block that no tower has, or when nothing is left; it says what
            the model has.
    """
    inside = [layer for layer in layers if layer.block is not None and layer.role != "head"]
    counts = {
        t: 1 + max((x.block for x in inside if x.tower == t and x.block is not None), default=-1)
        for t in get_args(Tower)
    }
    words, numbers = _asked_for(which)
    roles = (roles,) if isinstance(roles, str) else roles
    if unknown := sorted(set(words) - set(get_args(Which))):
        raise MedclipError(
            Reason.WRONG_USE,
            f"there is no set of layers named {unknown[0]!r}.",
            hint=f"{did_you_mean(unknown[0], get_args(Which), 'Sets are')} Join them by +, or name numbers of blocks.",
        )
    blocks_present = {layer.block for layer in inside}
    lacking = [n for n in numbers if n not in blocks_present and n >= 0]
    chosen = tuple(
        layer
        for layer in inside
        if (roles is None or layer.role in roles)
        and (
            (layer.block in numbers)
            if not words
            else any(_in_third(layer.block, counts[layer.tower], w) for w in words)
        )
    )
    if not chosen or lacking:
        wanted = "+".join(words) if words else f"blocks {', '.join(map(str, lacking or numbers))}"
        of_roles = "" if roles is None else f" with the roles {', '.join(map(str, roles))}"
        has = sorted({layer.role for layer in inside})
        blocks = " and ".join(f"{n} {t} blocks, 0 to {n - 1}" for t, n in counts.items() if n) or "no blocks"
        raise MedclipError(
            Reason.WRONG_USE,
            f"this model has no layers in {wanted!r}{of_roles}.",
            hint=f"It has {blocks}; roles: {', '.join(has) or 'none'}.",
        )
    return chosen


def _asked_for(which: str | int | Sequence[int]) -> tuple[list[str], list[int]]:
    """Return the words, or the numbers of blocks, that were asked for."""
    if isinstance(which, int):
        return [], [which]
    if not isinstance(which, str):
        if isinstance(which, Sequence) and all(isinstance(n, int) for n in which):
            return [], list(which)
        raise MedclipError(
            Reason.WRONG_USE,
            f"{which!r} names no layers.",
            hint=f"Say {', '.join(get_args(Which))}, some of them joined by +, or numbers of blocks.",
        )
    parts = [part.strip() for part in re.split(r"[+,]", which)]
    if all(part.isdecimal() for part in parts):
        return [], [int(part) for part in parts]
    return parts, []


def _in_third(block: int | None, count: int, word: str) -> bool:
    assert block is not None
    if word == "all":
        return True
    third = 2 - ((count - 1 - block) * 3) // count  # counted from the top, so that top is never the empty one
    return third == ("bottom", "middle", "top").index(word)


def _has_matrix(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1) and module.groups == 1 and module.padding in ((0, 0), "valid")
    return isinstance(module, nn.Linear | SVDLinear)


def block_of(name: str) -> str | None:
    """Return the path of the innermost numbered block that a layer lies in."""
    end = None
    for match in _BLOCK.finditer(name):
        end = match.end()
        if match[0].lstrip(".").startswith("block."):  # T5: what is numbered inside are parts of the block
            break
    if end is None:
        return None
    nested = re.match(r"(?:\.\d+)+(?=\.)", name[end:])  # EfficientNet: blocks.<stage>.<block>
    return name[: end + (nested.end() if nested else 0)]


def _role(name: str, module: nn.Module, block: int | None) -> Role:
    if block is None:
        return "head"
    if isinstance(module, nn.Conv2d) or getattr(module, "is_conv", False):
        return "conv"
    parts = name.split(".")
    for role, words in _ROLES:
        if parts[-1] in words:
            return role
    attention = any("attn" in p or "attention" in p.lower() for p in parts[:-1])
    return "out" if attention else "mlp"
