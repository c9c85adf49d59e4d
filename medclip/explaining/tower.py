"""One pass through an image tower with everything kept that an explanation needs: attention, tokens, feature maps.

Nothing is asked of a tower's class. Attention says which modules are blocks, the last feature map before the tokens
says their grid, and the rest of the tokens stand before it; a tower without tokens is read at its last feature map.

Attention has its softmax written out and kept in the graph: fused kernels return no weights, and no gradient. Whatever
attends in a tower is replaced for the length of one forward pass: open_clip's blocks and poolers
(`nn.MultiheadAttention`), timm's blocks (which have a plain path beside the fused one) and timm's attention pool, the
head of SigLIP. The features are those of the fused path; a test holds the difference below 1e-5.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers.attention_pool import AttentionPoolLatent
from torch import Tensor, nn
from torch.nn import functional

from medclip.errors import MedclipError, Reason
from medclip.models.towers.rotary_text import RotaryAttention
from medclip.models.towers.tokens import grids_of


@dataclass(frozen=True, eq=False)
class Attended:
    """One use of attention in a forward pass."""

    place: str
    """Name of the module in the tower."""
    weights_BHQK: Tensor
    """float32 [batch, heads, queries, keys]; rows sum to 1. Part of the graph."""


@contextmanager
def explicit_attention(tower: nn.Module) -> Iterator[list[Attended]]:
    """Have a tower write out its attention for a while.

    Args:
        tower: Image or text tower, in eval mode.

    Yields:
        The list that each forward pass inside adds to, in the order of use.
    """
    records: list[Attended] = []
    with ExitStack() as undo:
        for place, module in tower.named_modules():
            record = _recorder(records, place)
            if isinstance(module, nn.MultiheadAttention):
                undo.enter_context(_with_forward(module, _Multihead(module, record)))
            elif isinstance(module, AttentionPoolLatent):
                undo.enter_context(_with_forward(module, _LatentPool(module, record)))
            elif hasattr(module, "fused_attn") and isinstance(getattr(module, "attn_drop", None), nn.Module):
                undo.enter_context(_unfused(module, record))
        yield records


def _recorder(records: list[Attended], place: str) -> Any:
    return lambda weights: records.append(Attended(place, weights))


@contextmanager
def _with_forward(module: nn.Module, forward: Any) -> Iterator[None]:
    module.forward = forward
    try:
        yield
    finally:
        del module.forward  # the one of the class shows again


@contextmanager
def _unfused(module: Any, record: Any) -> Iterator[None]:
    """Take timm's plain path, and keep what comes out of its dropout of weights: in eval mode the weights."""
    before = module.fused_attn
    handle = module.attn_drop.register_forward_hook(lambda _module, _inputs, weights: record(weights))
    module.fused_attn = False
    try:
        yield
    finally:
        module.fused_attn = before
        handle.remove()


class _Written:
    """Forward of a module with its softmax written out."""

    def __init__(self, module: Any, record: Any) -> None:
        self._module, self._record = module, record


class _Multihead(_Written):
    """Of `nn.MultiheadAttention`."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        module = self._module
        if not module.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        heads = module.num_heads
        q, k, v = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in self._projected(query, key, value))
        if isinstance(module, RotaryAttention):
            q, k = module.turn(q), module.turn(k)
        logits_BHQK = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        if attn_mask is not None:
            logits_BHQK = _masked(logits_BHQK, attn_mask)
        if key_padding_mask is not None:
            logits_BHQK = _masked(logits_BHQK, key_padding_mask[:, None, None])
        weights_BHQK = logits_BHQK.softmax(dim=-1)
        self._record(weights_BHQK)
        out = module.out_proj((weights_BHQK @ v).transpose(1, 2).flatten(2))
        return (out if module.batch_first else out.transpose(0, 1)), None

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        module = self._module
        biases = (None,) * 3 if module.in_proj_bias is None else module.in_proj_bias.chunk(3)
        if module.in_proj_weight is not None:
            weights = module.in_proj_weight.chunk(3)
        else:
            weights = module.q_proj_weight, module.k_proj_weight, module.v_proj_weight
        q, k, v = (functional.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
        return q, k, v


def _masked(logits: Tensor, mask: Tensor) -> Tensor:
    return logits.masked_fill(mask, float("-inf")) if mask.dtype == torch.bool else logits + mask


class _LatentPool(_Written):
    """Of timm's attention pool."""

    def __call__(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        pool = self._module
        if pool.pos_embed is not None:
            x = x + pool.pos_embed.unsqueeze(0).to(x.dtype)
        latent = pool.q(pool.latent.expand(len(x), -1, -1))
        q, k, v = (
            part.unflatten(2, (pool.num_heads, pool.head_dim)).transpose(1, 2)
            for part in (latent, *pool.kv(x).chunk(2, dim=-1))
        )
        logits = (pool.q_norm(q) * pool.scale) @ pool.k_norm(k).transpose(-2, -1)
        weights = (logits if attn_mask is None else _masked(logits, ~attn_mask)).softmax(dim=-1)
        self._record(weights)
        pooled = pool.proj_drop(pool.proj((weights @ v).transpose(1, 2).flatten(2)))
        if pool.mlp is not None:
            pooled = pooled + pool.mlp(pool.norm(pooled))
        return pooled[:, 0] if pool.pool == "token" else pooled.mean(1) if pool.pool == "avg" else pooled


UNDERSTOOD = (
    "vision transformers of open_clip and timm (class token, mean or attention pooling) and convolutional towers of "
    "open_clip and timm, such as ResNet, EfficientNet and ConvNeXt"
)

_MOST_BEFORE = 16
"""Class and register tokens of the towers known are five at most."""


@dataclass(frozen=True, eq=False)
class Traced:
    """What one pass left."""

    features_BD: Tensor
    """Not normalised; part of the graph."""
    attended: tuple[Attended, ...]
    """In the order of use."""
    blocks: tuple[tuple[str, Tensor], ...]
    """Name and output [B, T, C] of each block of a transformer."""
    tokens_BTC: Tensor | None
    """Last state of all tokens, behind the normalisation that comes before the pooling, if any does."""
    layer: str
    """Module that made `maps_BCHW`."""
    maps_BCHW: Tensor | None
    """Last feature map of more than one place; of a transformer its patches as they came in."""
    grid: tuple[int, int]
    """Rows and columns of the places that a map has."""
    num_before: int
    """Tokens before those of the patches: class and register tokens."""

    @property
    def is_transformer(self) -> bool:
        """Whether it is read by its attention."""
        return bool(self.blocks)


def trace(visual: nn.Module, batch: Any) -> Traced:
    """Run a tower on what `with_gradient` made of the input, and keep the graph.

    Args:
        visual: Image tower in eval mode, its weights need no gradient.
        batch: Input, float32 [B, 3, H, W], or the patches of one image of a tower that takes native aspect ratios.

    Raises:
        MedclipError: NOT_SUPPORTED_YET for a tower that has neither, naming those that are understood.
    """
    with explicit_attention(visual) as attended, _outputs(visual) as outputs, torch.enable_grad():
        features = visual(batch)
    if isinstance(features, dict):
        features = features["image_features"]
    features = features[0] if isinstance(features, tuple) else features
    # Squares only, which leaves out the maps of windowed transformers, whose channels come last.
    maps = [(n, out) for n, out in outputs if out.ndim == 4 and min(out.shape[2:]) > 1 and out.shape[2] == out.shape[3]]
    states = _states(attended)
    if states:
        num_tokens = states[0].weights_BHQK.shape[-1]
        grid, before = _grid_of(batch, [out for _, out in maps], num_tokens)
        tokens = [(name, out) for name, out in outputs if out.ndim == 3 and out.shape[1] == num_tokens]
        parents = [record.place.rpartition(".")[0] for record in states]
        last_of = dict(tokens)  # a block is called once
        blocks = tuple((name, last_of[name]) for name in parents if name in last_of)
        if grid is not None and blocks:
            return Traced(features, tuple(attended), blocks, tokens[-1][1], blocks[-1][0], None, grid, before)
        of_maps = {name for name, out in maps if out.shape[2] * out.shape[3] == num_tokens}
        if not all(record.place in of_maps for record in states):  # FastViT attends among the places of a map
            maps = []
    if maps:
        layer, out = maps[-1]
        return Traced(features, tuple(attended), (), None, layer, out, (out.shape[2], out.shape[3]), 0)
    raise MedclipError(
        Reason.NOT_SUPPORTED_YET,
        f"the image tower is of the class {type(getattr(visual, 'trunk', visual)).__name__}, whose feature maps were "
        "not recognised.",
        hint=f"Understood are {UNDERSTOOD}.",
    )


def with_gradient(batch: Any) -> Any:
    """Return the input with a gradient: without one there would be no graph, as weights need none here."""
    if isinstance(batch, dict):
        return {**batch, "patches": batch["patches"].detach().requires_grad_()}
    return batch.detach().requires_grad_()


@contextmanager
def _outputs(visual: nn.Module) -> Iterator[list[tuple[str, Tensor]]]:
    """Keep what each module returns, in the order in which they end."""
    kept: list[tuple[str, Tensor]] = []
    with ExitStack() as undo:
        for name, module in visual.named_modules():

            def keep(_module: nn.Module, _inputs: Any, out: Any, name: str = name) -> None:
                if isinstance(out, Tensor):
                    kept.append((name, out))

            undo.callback(module.register_forward_hook(keep).remove)
        yield kept


def _states(attended: list[Attended]) -> list[Attended]:
    """Return the uses of attention of tokens among themselves, all of one number; () where a tower has another form."""
    states = [a for a in attended if a.weights_BHQK.shape[-1] == a.weights_BHQK.shape[-2]]
    sizes = {a.weights_BHQK.shape[-1] for a in states}
    return states if len(sizes) == 1 and len(states) > 1 else []


def _grid_of(batch: Any, maps: list[Tensor], num_tokens: int) -> tuple[tuple[int, int] | None, int]:
    """Return rows and columns of the patches, and how many tokens stand before them."""
    if isinstance(batch, dict):
        rows, columns = grids_of(batch)[0]
        return (rows, columns), num_tokens - batch["patches"].shape[1]
    for out in reversed(maps):
        before = num_tokens - out.shape[2] * out.shape[3]
        if 0 <= before <= _MOST_BEFORE:
            return (out.shape[2], out.shape[3]), before
    return None, 0
