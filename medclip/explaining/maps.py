"""Heat maps of the images of one unit, on the grid of the tower: what of an image raises a score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from captum.attr import LayerGradCam
from numpy.typing import NDArray
from torch import Tensor, nn

from medclip.errors import MedclipError, Reason
from medclip.explaining.class_activation import gradient_weights, score_weights, weighted_map
from medclip.explaining.methods import (
    CAM_ONLY,
    DEFAULT_CONVOLUTION,
    DEFAULT_TRANSFORMER,
    MASKING,
    METHODS,
    OCCLUSION,
    TRANSFORMER_ONLY,
    Empty,
)
from medclip.explaining.records import features_without
from medclip.explaining.relevance import contribution, gradient_rollout, relevance, rollout
from medclip.explaining.target import Target
from medclip.explaining.tower import Traced, trace, with_gradient


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
        images: From `Preprocess.together`: all images of a unit.
        targets: What is explained.
        method: One of `methods.METHODS`; by default gradient-weighted attention for transformers, Grad-CAM for
            others; of ECGs occlusion, each second of each lead.
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
        used = _method_for(traced, method, squares=not isinstance(batch, dict))
        unit_BD = nn.functional.normalize(traced.features_BD.float(), dim=-1)
        features = unit_BD.detach().cpu().numpy()
        for number, target in enumerate(targets):
            directions = np.stack([target.direction(feature) for feature in features])
            work = _Work(tower, batch, traced, unit_BD, torch.from_numpy(directions).to(unit_BD), target)
            grids, layer = work.grids(used)
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
    """Compute the maps of ECGs, [12, S]: by how much a score falls without a second of a lead."""
    if method not in (None, OCCLUSION):
        raise MedclipError(
            Reason.WRONG_USE, f"{method} is of images, and this model takes ECGs.", hint=f"It takes {OCCLUSION}."
        )
    encoded = [features_without(model, image, model.preprocess.signal.seconds, visual) for image in images]
    maps = []
    for target in targets:
        scores, grids = [], []
        for vector_D, without_LSD, known_LS in encoded:
            score = float(target.score(vector_D[None])[0])
            falls = score - target.score(without_LSD[known_LS])
            grid = np.zeros(known_LS.shape, np.float32)
            grid[known_LS] = np.maximum(0.0, falls)
            scores.append(score)
            grids.append(grid)
        empty: tuple[Empty, ...] = tuple("" if grid.any() else "nothing raises it" for grid in grids)
        maps.append(Maps(target, np.array(scores), tuple(grids), empty, OCCLUSION, "the record itself"))
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


def _method_for(traced: Traced, method: str | None, *, squares: bool) -> str:
    if method == OCCLUSION:
        raise MedclipError(
            Reason.WRONG_USE,
            f"{method} is of models of ECGs, and this one takes images.",
            hint=f"It takes {', '.join(name for name in METHODS if name != OCCLUSION)}.",
        )
    if method is None:
        return DEFAULT_TRANSFORMER if traced.is_transformer else DEFAULT_CONVOLUTION
    if method in TRANSFORMER_ONLY and not traced.is_transformer:
        raise MedclipError(
            Reason.WRONG_USE,
            f"{method} follows attention, and this image tower has none to follow.",
            hint=f"It takes {', '.join(CAM_ONLY)}.",
        )
    if method in MASKING and not squares:
        raise MedclipError(
            Reason.WRONG_USE,
            f"{method} masks square images, and this model takes images at their own aspect ratio.",
            hint=f"It takes {', '.join(name for name in METHODS if name not in (*MASKING, OCCLUSION))}.",
        )
    return method


class _Work:
    """One batch and one target."""

    def __init__(
        self, tower: nn.Module, batch: Any, traced: Traced, unit_BD: Tensor, directions_BD: Tensor, target: Target
    ) -> None:
        self._tower, self._batch, self._traced, self._target = tower, batch, traced, target
        # Relevance over several blocks has products of gradients: with a direction of length 1, and its length put back
        # on the map, a score that is twice as steep draws the same map twice as strong.
        self._lengths_B = directions_BD.norm(dim=-1)
        self._directions_BD = directions_BD / self._lengths_B.clamp_min(1e-12)[:, None]
        self._score = (unit_BD * self._directions_BD).sum()

    def grids(self, method: str) -> tuple[list[NDArray[np.float32]], str]:
        """Return a map of each image, and the layer that was read."""
        maps, layer = self._unscaled(method)
        if method not in ("rollout", *MASKING):
            maps = [grid * float(length) for grid, length in zip(maps, self._lengths_B, strict=True)]
        return maps, layer

    def _unscaled(self, method: str) -> tuple[list[NDArray[np.float32]], str]:
        if method in TRANSFORMER_ONLY:
            rows = self._attention_rows(method)
            height, width = self._traced.grid
            count, before = height * width, self._traced.num_before
            maps = [row[before : before + count].reshape(height, width).astype(np.float32) for row in rows]
            return maps, self._traced.layer
        if method == "grad-cam" and not self._traced.is_transformer:
            module = self._tower.get_submodule(self._traced.layer)
            layer = self._traced.maps_BCHW
            assert layer is not None
            if not self._gradients([layer])[0].any():  # captum raises where nothing hangs on the layer
                return list(np.zeros((len(layer), *layer.shape[2:]), np.float32)), self._traced.layer
            values = LayerGradCam(self._scores, module).attribute(self._batch, relu_attributions=True)
            assert isinstance(values, Tensor)
            return list(values[:, 0].detach().float().cpu().numpy()), self._traced.layer
        activation_BCHW, gradient_BCHW, layer = self._activation()
        maps = []
        for number, (activation, gradient) in enumerate(zip(activation_BCHW.detach(), gradient_BCHW, strict=True)):
            if method == "grad-cam":
                weights = gradient_weights(gradient)
            else:
                direction = self._directions_BD[number] * self._lengths_B[number]
                few = min(_CHANNELS, len(activation)) if method == "gscore-cam" else None
                weights = score_weights(
                    activation,
                    self._batch[number].detach(),
                    lambda images, direction=direction: self._score_of(images, direction),
                    gradient_CHW=gradient if few else None,
                    num_channels=few,
                )
            maps.append(weighted_map(weights, activation).float().cpu().numpy())
        return maps, layer

    def why_empty(self, grids: Sequence[NDArray[np.float32]]) -> list[Empty]:
        """Return why each map is zero all over; "" for one that is not."""
        if all(grid.any() for grid in grids):
            return [""] * len(grids)
        pixels = self._batch["patches"] if isinstance(self._batch, dict) else self._batch
        (gradient,) = self._gradients([pixels])
        moved = [bool(part.any()) for part in gradient]
        return [
            "" if grid.any() else "nothing raises it" if moves else "zero gradient"
            for grid, moves in zip(grids, moved, strict=True)
        ]

    def _attention_rows(self, method: str) -> list[NDArray[np.float64]]:
        """Return what each token counts, [T] of each image."""
        attended = self._traced.attended
        weights = [a.weights_BHQK for a in attended]
        tokens = self._traced.tokens_BTC
        assert tokens is not None
        *gradients, pulled = self._gradients([*weights, tokens])
        used = [n for n, g in enumerate(gradients) if g.any() or weights[n].shape[-1] == weights[n].shape[-2]]
        attention = [weights[n].detach().double().cpu().numpy() for n in used]
        gradient = [gradients[n].double().cpu().numpy() for n in used]
        # What each token brings into the pooling: its state times its gradient, which is the weight of a mean pooling.
        brought_BT = (tokens.detach() * pulled).sum(-1).double().cpu().numpy()
        read_BT = pulled.any(-1).cpu().numpy()
        return [
            _row(method, [a[b] for a in attention], [g[b] for g in gradient], brought_BT[b], read_BT[b])
            for b in range(len(brought_BT))
        ]

    def _activation(self) -> tuple[Tensor, Tensor, str]:
        """Return the feature maps that are weighted, their gradient and where they are from.

        Of a transformer they are its patches behind the block before the last: where the head reads the class token
        alone, the patches of the last block have no gradient.
        """
        traced = self._traced
        if traced.maps_BCHW is not None:
            return traced.maps_BCHW, self._gradients([traced.maps_BCHW])[0], traced.layer
        layer, tokens_BTC = traced.blocks[max(0, len(traced.blocks) - 2)]
        (gradient_BTC,) = self._gradients([tokens_BTC])
        height, width = traced.grid
        patches = slice(traced.num_before, traced.num_before + height * width)
        activation, gradient = (
            x[:, patches].unflatten(1, (height, width)).permute(0, 3, 1, 2) for x in (tokens_BTC, gradient_BTC)
        )
        return activation, gradient, layer

    def _gradients(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        if not self._score.requires_grad:
            return [torch.zeros_like(tensor) for tensor in tensors]
        gradients = torch.autograd.grad(self._score, tensors, retain_graph=True, allow_unused=True)
        return [torch.zeros_like(t) if g is None else g for t, g in zip(tensors, gradients, strict=True)]

    def _scores(self, batch: Tensor) -> Tensor:
        return (_features(self._tower, batch) * self._directions_BD).sum(-1)

    def _score_of(self, images: Tensor, direction_D: Tensor) -> Tensor:
        with torch.no_grad():
            return _features(self._tower, images) @ direction_D


_CHANNELS = 300
"""gScoreCAM's k."""


def _features(tower: nn.Module, batch: Any) -> Tensor:
    features = tower(batch)
    features = features[0] if isinstance(features, tuple) else features
    return nn.functional.normalize(features.float(), dim=-1)


def _row(
    method: str,
    attention: list[NDArray],
    gradient: list[NDArray],
    brought_T: NDArray[np.float64],
    read_T: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Return what each token counts for what the tower reads in the end: its class token, a pooling, or all tokens."""
    square = [n for n, a in enumerate(attention) if a.shape[1] == a.shape[2]]
    pools = [n for n in range(len(attention)) if n not in square]
    if method == "rollout":
        flow = rollout([attention[n] for n in square])
    elif method == "gradient-rollout":
        flow = gradient_rollout([attention[n] for n in square], [gradient[n] for n in square])
    else:
        flow = relevance([attention[n] for n in square], [gradient[n] for n in square])
    if pools:
        for n in pools:
            block = attention[n].mean(axis=0) if method == "rollout" else contribution(attention[n], gradient[n])
            flow = block @ flow
        return flow.sum(axis=0)
    read = np.flatnonzero(read_T)
    if len(read) <= 1:  # a class token, or no gradient at all
        row = int(read[0]) if len(read) else 0
        return flow[row] - np.eye(len(flow))[row]
    weights_T = np.full(len(flow), 1 / len(flow)) if method == "rollout" else np.maximum(0.0, brought_T)
    return weights_T @ flow
