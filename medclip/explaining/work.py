"""One batch of images and one score: what a method of heat maps computes with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medclip.explaining.methods import Empty
from medclip.explaining.target import Target
from medclip.explaining.tower import Traced

WorkMaps = tuple[list[NDArray[np.float32]], str]
"""A map of each image, on the grid of the tower, and the layer that was read."""


class Work:
    """One batch and one target.

    Args:
        tower: Image tower.
        batch: Input of the tower, with a gradient.
        traced: Record that one pass of it left.
        unit_BD: Features, of unit norm; part of the graph.
        directions_BD: Gradient of the score in the features of each image.
        target: Target that is explained.
    """

    def __init__(
        self, tower: nn.Module, batch: Any, traced: Traced, unit_BD: Tensor, directions_BD: Tensor, target: Target
    ) -> None:
        self.tower, self.batch, self.traced, self.target = tower, batch, traced, target
        # Relevance over several blocks has products of gradients: with a direction of length 1, and its length put back
        # on the map, a score that is twice as steep draws the same map twice as strong.
        self.lengths_B = directions_BD.norm(dim=-1)
        self.directions_BD = directions_BD / self.lengths_B.clamp_min(1e-12)[:, None]
        self._score = (unit_BD * self.directions_BD).sum()

    def why_empty(self, grids: Sequence[NDArray[np.float32]]) -> list[Empty]:
        """Return why each map is zero all over; "" for one that is not."""
        if all(grid.any() for grid in grids):
            return [""] * len(grids)
        pixels = self.batch["patches"] if isinstance(self.batch, dict) else self.batch
        (gradient,) = self.gradients([pixels])
        moved = [bool(part.any()) for part in gradient]
        return [
            "" if grid.any() else "nothing raises it" if moves else "zero gradient"
            for grid, moves in zip(grids, moved, strict=True)
        ]

    def activation(self) -> tuple[Tensor, Tensor, str]:
        """Return the feature maps that are weighted, their gradient and where they are from.

        Of a transformer they are its patches behind the block before the last: where the head reads the class token
        alone, the patches of the last block have no gradient.
        """
        traced = self.traced
        if traced.maps_BCHW is not None:
            return traced.maps_BCHW, self.gradients([traced.maps_BCHW])[0], traced.layer
        layer, tokens_BTC = traced.blocks[max(0, len(traced.blocks) - 2)]
        (gradient_BTC,) = self.gradients([tokens_BTC])
        height, width = traced.grid
        patches = slice(traced.num_before, traced.num_before + height * width)
        activation, gradient = (
            x[:, patches].unflatten(1, (height, width)).permute(0, 3, 1, 2) for x in (tokens_BTC, gradient_BTC)
        )
        return activation, gradient, layer

    def gradients(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the gradient of the score in each of these; zeros where it does not hang on them."""
        if not self._score.requires_grad:
            return [torch.zeros_like(tensor) for tensor in tensors]
        gradients = torch.autograd.grad(self._score, tensors, retain_graph=True, allow_unused=True)
        return [torch.zeros_like(t) if g is None else g for t, g in zip(tensors, gradients, strict=True)]

    def scores(self, batch: Tensor) -> Tensor:
        """Return the score of each image of such a batch, by a direction of length 1."""
        return (_features(self.tower, batch) * self.directions_BD).sum(-1)

    def score_of(self, images: Tensor, number: int) -> Tensor:
        """Return the score of other images by the direction of one of the batch; without gradients."""
        with torch.no_grad():
            return _features(self.tower, images) @ (self.directions_BD[number] * self.lengths_B[number])


def _features(tower: nn.Module, batch: Any) -> Tensor:
    features = tower(batch)
    features = features[0] if isinstance(features, tuple) else features
    return nn.functional.normalize(features.float(), dim=-1)
