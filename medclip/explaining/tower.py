"""One pass through an image tower with everything kept that an explanation needs: attention, tokens, feature maps.

Nothing is asked of a tower's class. Attention says which modules are blocks, the last feature map before the tokens
says their grid, and the rest of the tokens stand before it; a tower without tokens is read at its last feature map.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from medclip.errors import MedclipError, Reason
from medclip.explaining.attention import Attended, explicit_attention
from medclip.models.towers.tokens import grids_of

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
