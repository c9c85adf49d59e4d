"""Heat maps of the images of one unit, on the grid of the tower: what of an image raises a score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medclip.explaining.explainers import EXPLAINERS, Empty, choose_explainer
from medclip.explaining.records import RecordWork, features_without
from medclip.explaining.target import Target
from medclip.explaining.tower import Traced, trace, with_gradient
from medclip.lazy import import_name

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


@dataclass(frozen=True, eq=False)
class Maps:
    """The maps of one score, one for each image of a unit."""

    target: Target
    scores_V: NDArray[np.float64]
    grids: tuple[NDArray[np.float32], ...]
    """[rows, columns] of the tower's grid, from 0."""
    empty: tuple[Empty, ...]
    """Why a map is zero all over; "" for one that is not."""
    method: str
    layer: str
    """Module of the tower that was read."""


def compute_maps(
    model: Any, images: Any, targets: Sequence[Target], method: str | None = None, *, visual: nn.Module | None = None
) -> tuple[Maps, ...]:
    """Compute the heat maps of some scores.

    Args:
        model: The loaded model.
        images: All images of a unit, from `Preprocess.together`.
        targets: Targets that are explained.
        method: Name of one of `EXPLAINERS`; None for that of `DEFAULTS`.
        visual: Another image tower than the model's own, such as one with re-initialised blocks.

    Returns:
        One entry for each target.

    Raises:
        MedclipError: NOT_SUPPORTED_YET for a tower that is not understood; WRONG_USE for a method that does not fit it.
    """
    if model.preprocess.signal is not None:
        return _record_maps(model, images, targets, method, visual)
    tower = model.clip.visual if visual is None else visual
    step = 1 if model.preprocess.budget is not None else model.batch_size
    parts: list[list[tuple[NDArray[np.float64], list[NDArray[np.float32]], list[Empty]]]] = [[] for _ in targets]
    used = layer = ""
    for start in range(0, len(images), step):
        batch = with_gradient(_trimmed(model.normalise(images[start : start + step])))
        traced = trace(tower, batch)
        kind = "transformer" if traced.is_transformer else "convolution"
        used = choose_explainer(method, kind, squares=not isinstance(batch, dict))
        unit_BD = nn.functional.normalize(traced.features_BD.float(), dim=-1)
        features = unit_BD.detach().cpu().numpy()
        for number, target in enumerate(targets):
            directions = np.stack([target.direction(feature) for feature in features])
            work = Work(tower, batch, traced, unit_BD, torch.from_numpy(directions).to(unit_BD), target)
            grids, layer = import_name(EXPLAINERS[used].target)(work)
            if EXPLAINERS[used].follows_gradient:
                grids = [grid * float(length) for grid, length in zip(grids, work.lengths_B, strict=True)]
            parts[number].append((target.score(features), grids, work.why_empty(grids)))
    return tuple(
        Maps(
            target,
            np.concatenate([scores for scores, _, _ in of_target]),
            tuple(grid for _, grids, _ in of_target for grid in grids),
            tuple(why for _, _, empty in of_target for why in empty),
            used,
            layer,
        )
        for target, of_target in zip(targets, parts, strict=True)
    )


def _record_maps(
    model: Any, images: Any, targets: Sequence[Target], method: str | None, visual: nn.Module | None
) -> tuple[Maps, ...]:
    """Compute the maps of ECGs, [12, S]."""
    used = choose_explainer(method, "record")
    encoded = tuple(features_without(model, image, model.preprocess.signal.seconds, visual) for image in images)
    maps = []
    for target in targets:
        grids, layer = import_name(EXPLAINERS[used].target)(RecordWork(model, images, visual, target, encoded))
        scores = np.array([float(target.score(vector_D[None])[0]) for vector_D, _, _ in encoded])
        empty: tuple[Empty, ...] = tuple("" if grid.any() else "nothing raises it" for grid in grids)
        maps.append(Maps(target, scores, tuple(grids), empty, used, layer))
    return tuple(maps)


def scaled(values: NDArray[Any]) -> NDArray[np.float32]:
    """Stretch a map from 0 to 1: (m - min) / (max - min + 1e-8), what is NaN left alone."""
    low, high = np.nanmin(values), np.nanmax(values)
    return ((values - low) / (high - low + 1e-8)).astype(np.float32)


def _trimmed(batch: Any) -> Any:
    """Leave out the padding of one image in patches: only there does attention need a mask."""
    if not isinstance(batch, dict):
        return batch
    count = int(batch["patch_valid"][0].sum())
    return {name: values[:, :count] for name, values in batch.items()}
