"""Make a loaded model compute its image tower with another back-end."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medclip.errors import MedclipError, Reason
from medclip.models.backends.known import EAGER, BackendKind, check_backend, scales_need_images
from medclip.models.encoding.parallel_encoding import num_encoders

if TYPE_CHECKING:
    from medclip.models.model import Model

MIXED_BITS = 14.0
"""For a weight on average, where layers of most relevance stay float32: a quarter of the weights."""
Encode = Callable[[Tensor], Tensor]
"""What `Model.normalise` returned to features [B, D], float32, of any norm. Called from several threads at once."""


def load_backend(model: Model, kind: BackendKind, graph: bytes | None = None) -> Model:
    """Return a model that computes images with a back-end; words, preprocessing and all else stay as they are.

    Args:
        model: Loaded, on a device that the back-end computes on.
        kind: The back-end.
        graph: The ONNX graph that a calibration stored; made of the model's tower where None, from no images.

    Raises:
        MedclipError: What `check_backend` raises; WRONG_USE for a model on another device, and for a tower of native
            aspect ratios with a back-end that does not take them; WRONG_USE for a tower that has no tokens to merge;
            PACK_INVALID for a tower that cannot be exported.
    """
    check_backend(kind, str(model.device))
    refuse_misfit(model, kind)
    if kind.name == EAGER:
        return model
    return model.with_image_tower(_encode(model, kind, graph or make_graph(model, kind)))


def refuse_misfit(model: Model, kind: BackendKind) -> None:
    """Refuse a back-end that cannot compute a model's tower.

    Raises:
        MedclipError: WRONG_USE.
    """
    if kind.name == EAGER:
        return
    if model.device.type not in kind.devices:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the back-end {kind.name} computes on {' or '.join(kind.devices)}, and the model is on the device "
            f"{model.device}.",
            hint="Leave --device or --backend out.",
        )
    if kind.is_bfloat16 and model.device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise MedclipError(
            Reason.WRONG_USE,
            f"the card {model.device} has no bfloat16, which the back-end {kind.name} computes with.",
            hint="Leave --backend out.",
        )
    if model.preprocess.budget is not None and not kind.takes_patches:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the model {model.name} takes images of any aspect ratio, which the back-end {kind.name} does not.",
            hint="Leave --backend out.",
        )


def make_graph(
    model: Model,
    kind: BackendKind,
    *,
    plain: bytes | None = None,
    images: Sequence[NDArray[Any]] = (),
    directions_ND: NDArray[Any] | None = None,
) -> bytes | None:
    """Return the ONNX graph that a back-end runs; None for one that runs none.

    Args:
        model: Whose tower it is.
        kind: The back-end.
        plain: The graph in float32, where it was made before.
        images: At the model's size, for a back-end whose numbers are set on images.
        directions_ND: For each of them the weights of its answer, as `layer_relevance` takes them; where None, what
            makes its vector another one than the mean.

    Raises:
        MedclipError: WRONG_USE for such a back-end without images; PACK_INVALID for a tower that cannot be exported.
    """
    if not kind.libraries:
        return None
    from medclip.models.backends.onnx_graph import export_onnx, quantise_dynamic, quantise_static

    if kind.needs_images and not len(images):
        raise scales_need_images(kind)
    graph = plain or export_onnx(model.image_tower, _example(model))
    if kind.name == "onnx-mixed":
        return quantise_dynamic(graph, _relevant_weights(model, images, directions_ND))
    if kind.needs_images:
        return quantise_static(graph, [model.normalise([image]) for image in images])
    return quantise_dynamic(graph) if kind.is_int8 else graph


def _encode(model: Model, kind: BackendKind, graph: bytes | None) -> Encode:
    if kind.compiles:
        from medclip.models.backends.compiled_tower import CompiledTower

        example = _example(model, max(2, model.batch_size))
        if not kind.is_bfloat16:
            return CompiledTower(model.image_tower, example, num_encoders())
        tower = _in_bfloat16(model.image_tower)
        return _BfloatTower(CompiledTower(tower, example.to(torch.bfloat16), num_encoders()))
    if graph is None and not kind.is_bfloat16:
        from medclip.models.token_merging.merging_tower import merging_tower

        return merging_tower(model.image_tower, "tome" if kind.name == "tome" else "pitome")
    if graph is None:
        return _BfloatTower(_in_bfloat16(model.image_tower))
    from medclip.models.backends.run_graph import OnnxTower, OpenVinoTower

    if kind.name.startswith("onnx"):
        return OnnxTower(graph, one_by_one=kind.is_int8)
    precision = "bf16" if kind.name.endswith("bf16") else "f32"
    return OpenVinoTower(graph, precision, num_encoders(), _example(model, model.batch_size))


def _relevant_weights(model: Model, images: Sequence[NDArray[Any]], directions_ND: NDArray[Any] | None) -> list[Tensor]:
    """Return the weights of the linear layers that stay float32: bits are divided as LRP-QViT does, 8 or 32 each."""
    from medclip.models.mixed_precision.allocate_bits import allocate_bits
    from medclip.models.mixed_precision.layer_relevance import layer_relevance, linear_layers

    layers = linear_layers(model.image_tower)
    batches = torch.cat([model.normalise([image]) for image in images])
    if directions_ND is None:
        with torch.inference_mode():
            features = torch.cat([model.image_tower(batch[None]) for batch in batches])
        directions_ND = (features - features.mean(0)).numpy()
    directions = torch.from_numpy(np.array(directions_ND, np.float32))
    scores = [
        layer_relevance(model.image_tower, batch[None], direction[None])
        for batch, direction in zip(batches, directions, strict=True)
    ]
    relevance = [float(np.mean([score[name] for score in scores])) for name in layers]
    bits = allocate_bits(
        relevance, [weight.numel() for weight in layers.values()], choices=(8, 32), mean_bits=MIXED_BITS
    )
    return [weight for weight, own in zip(layers.values(), bits, strict=True) if own == 32]


class _BfloatTower:
    """A tower whose weights are bfloat16; never autocast, which was three times slower than float32 in batches."""

    def __init__(self, tower: Encode) -> None:
        self._tower = tower

    def __call__(self, batch: Tensor) -> Tensor:
        return self._tower(batch.to(torch.bfloat16)).float()


def _in_bfloat16(tower: nn.Module) -> nn.Module:
    return copy.deepcopy(tower).to(torch.bfloat16)


def _example(model: Model, num: int = 2) -> Tensor:
    shape, dtype = model.preprocess.image_shape, model.preprocess.image_dtype
    values = np.random.default_rng(0).integers(0, 256, (num, *shape)).astype(dtype)
    return model.normalise(values)
