"""Changes to the layers of a tower that is there: locked, skipped or recomputed in training, softened or folded after.

Locked tuning (LiT) keeps one tower, or its first layers, as it is while the other learns. Stochastic depth (Huang et
al., ECCV 2016) skips a block for some samples, more often the deeper it lies; rates grow linearly, as in timm. Softer
attention, softmax(QKᵀ / (T·√d)) in every block without training, is drawn less onto one odd patch (Gu, Tresp and Qin,
ECCV 2022, the idea; that all blocks share one T is an assumption): scaling the query's weights by 1/T does the same as
scaling the logits, in any implementation of attention.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

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
            parameters = [f"{name}.{n}" for n, _ in module.named_parameters(recurse=False)]
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and parameters and set(parameters) <= set(locked):
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


_PLAIN = {"use_reentrant": False}
"""torch's newer form: it also works where the embeddings are locked and ask for no gradient."""


def recompute_activations(model: nn.Module) -> None:
    """Turn activation checkpointing on in both towers.

    As open_clip's `set_grad_checkpointing`, and for BERT towers in the way that present versions of transformers want
    (open_clip calls one that they deprecate).

    Args:
        model: open_clip dual encoder or an image tower alone, changed in place. Losses and gradients stay the same.
    """
    clip: Any = model
    clip.visual.set_grad_checkpointing(True)
    language_model: Any = getattr(getattr(clip, "text", None), "transformer", None)
    if hasattr(language_model, "activation_checkpointing_enable"):
        language_model.activation_checkpointing_enable(activation_checkpointing_kwargs=_PLAIN)
    elif hasattr(language_model, "gradient_checkpointing_enable"):
        language_model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=_PLAIN)
    elif hasattr(clip, "text"):
        clip.text.set_grad_checkpointing(True)
    elif hasattr(clip, "transformer"):
        clip.transformer.grad_checkpointing = True


_PLACES = ("drop_path", "drop_path1", "drop_path2")
"""What timm calls the places in its blocks where a branch may be left out."""


def set_drop_path(tower: nn.Module, rate: float) -> None:
    """Let blocks be skipped in training; a tower that is evaluated stays as it is, and so do its weights.

    Args:
        tower: An image tower of timm, changed in place.
        rate: Share of samples for which the last block is skipped; the first is never skipped. 0 turns it off.

    Raises:
        MedclipError: RECIPE_INVALID where the tower has no blocks that can be skipped.
    """
    from timm.layers.drop import DropPath

    blocks = [
        (module, names)
        for module in tower.modules()
        if (names := [n for n in _PLACES if isinstance(getattr(module, n, None), nn.Identity | DropPath)])
    ]
    if rate and len(blocks) < 2:
        raise MedclipError(
            Reason.RECIPE_INVALID,
            "model.drop_path: this image tower has no blocks that can be skipped.",
            hint="Leave it out, or choose a vision transformer of timm.",
        )
    for depth, (module, names) in enumerate(blocks):
        block_rate = rate * depth / max(1, len(blocks) - 1)
        for name in names:
            setattr(module, name, (DropPath(block_rate) if block_rate else nn.Identity()).train(module.training))


def with_attention_temperature(model: Any, temperature: float) -> Any:
    """Return the model with softer attention in its image tower.

    Args:
        model: Loaded `Model`; it is not changed.
        temperature: 1 for the attention as it is; larger is softer.

    Returns:
        None where a tower has no attention whose queries can be scaled: convolutional ones, and those that normalise
        their queries.
    """
    clip: Any = copy.deepcopy(model.clip)
    scaled = [scale_queries(module, temperature) for module in clip.visual.modules()]
    return model.with_towers(clip) if any(scaled) else None


def scale_queries(module: nn.Module, temperature: float) -> bool:
    """Divide the query's weights of one attention by the temperature; False for a module that is none."""
    if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
        weight, bias = module.in_proj_weight, module.in_proj_bias
    else:
        joint, norm = getattr(module, "qkv", None), getattr(module, "q_norm", None)
        if not isinstance(joint, nn.Linear) or not (norm is None or isinstance(norm, nn.Identity)):
            return False
        weight, bias = joint.weight, joint.bias
    width = len(weight) // 3
    with torch.no_grad():
        weight[:width] /= temperature
        if bias is not None:
            bias[:width] /= temperature
    return True


MAX_DIFFERENCE = 1e-3
"""Largest difference relative to the largest output that still counts as the same function in float32."""


def fold_batch_norm(tower: nn.Module, example_BCHW: Tensor) -> nn.Module:
    """Return a copy of an image tower with each convolution and the normalisation after it merged.

    Branches that timm can make one convolution, those of FastViT and MobileOne, become one before. A normalisation is
    taken to belong to the convolution registered just before it. That is how timm's convolutional nets are written;
    whether it holds for this tower is checked on the example, and where it does not the tower is returned as it is.

    Args:
        tower: Tower in eval mode.
        example_BCHW: Any normalised input of the right size.
    """
    if not any(isinstance(m, nn.BatchNorm2d) for m in tower.modules()):
        return tower  # a transformer: nothing to fold, and no second copy of its weights
    from timm.utils.model import reparameterize_model

    folded = reparameterize_model(tower)  # a copy
    for module in list(folded.modules()):
        _fold_children(module)
    with torch.inference_mode():
        before, after = tower(example_BCHW), folded(example_BCHW)
    same = float((before - after).abs().max()) <= MAX_DIFFERENCE * max(1.0, float(before.abs().max()))
    return folded if same else tower


def _fold_children(module: nn.Module) -> None:
    previous: tuple[str, nn.Conv2d] | None = None
    for name, child in list(module.named_children()):
        if previous is not None and isinstance(child, nn.BatchNorm2d) and child.running_mean is not None:
            setattr(module, previous[0], fuse_conv_bn_eval(previous[1], child))
            # timm's norm layers carry the activation (and a drop layer) with them
            setattr(module, name, getattr(child, "act", None) or nn.Identity())
        previous = (name, child) if isinstance(child, nn.Conv2d) else None
