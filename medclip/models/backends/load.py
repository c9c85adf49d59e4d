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
from medclip.files.temporary_folder import TemporaryFolder
from medclip.lazy import import_name
from medclip.models.backends.known import BackendKind, check_backend, scales_need_images
from medclip.models.backends.onnx_graph import (
    OnnxTower,
    OpenVinoTower,
    export_onnx,
    quantise_dynamic,
    quantise_static,
    quiet,
)
from medclip.models.devices import torch_threads
from medclip.models.encoding.parallel_encoding import num_encoders

if TYPE_CHECKING:
    from medclip.models.model import Model


MIXED_BITS = 14.0
"""For a weight on average, where layers of most relevance stay float32: a quarter of the weights."""
Images = Sequence[NDArray[Any]]
"""At the model's size."""
Directions = NDArray[Any] | None
"""For each image the weights of its answer; None where nobody asks of what."""
Encode = Callable[[Tensor], Tensor]
"""What `Model.normalise` returned to features [B, D], float32, of any norm. Called from several threads at once."""


def load_backend(model: Model, kind: BackendKind, graph: bytes | None = None) -> Model:
    """Return a model that computes images with a back-end; words, preprocessing and all else stay as they are.

    Args:
        model: Loaded model, on a device that the back-end computes on.
        kind: The back-end.
        graph: The ONNX graph that a calibration stored; made of the model's tower where None, from no images.

    Raises:
        MedclipError: What `check_backend` raises; WRONG_USE for a model on another device, and for a tower of native
            aspect ratios with a back-end that does not take them; WRONG_USE for a tower that has no tokens to merge;
            PACK_INVALID for a tower that cannot be exported.
    """
    check_backend(kind, str(model.device))
    refuse_misfit(model, kind)
    if kind.is_reference:
        return model
    encode: Encode = import_name(kind.encode)(model, graph or make_graph(model, kind))
    return model.with_image_tower(encode)


def refuse_misfit(model: Model, kind: BackendKind) -> None:
    """Refuse a back-end that cannot compute a model's tower.

    Raises:
        MedclipError: WRONG_USE.
    """
    if kind.is_reference:
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
    images: Images = (),
    directions_ND: Directions = None,
) -> bytes | None:
    """Return the ONNX graph that a back-end runs; None for one that runs none.

    Args:
        model: Model whose tower it is.
        kind: The back-end.
        plain: The graph in float32, where it was made before.
        images: Images at the model's size, for a back-end whose numbers are set on images.
        directions_ND: Weights of the answer of each image, as `layer_relevance` takes them; where None, what makes its
            vector another one than the mean.

    Raises:
        MedclipError: WRONG_USE for such a back-end without images; PACK_INVALID for a tower that cannot be exported.
    """
    if not kind.runs_graph:
        return None
    if kind.needs_images and not len(images):
        raise scales_need_images(kind)
    graph = plain or export_onnx(model.image_tower, _example(model))
    return import_name(kind.quantise)(graph, model, images, directions_ND) if kind.quantise else graph


def quantise_products(graph: bytes, model: Model, images: Images, directions_ND: Directions) -> bytes:
    """Quantise all products of matrices."""
    return quantise_dynamic(graph)


def quantise_least_relevant(graph: bytes, model: Model, images: Images, directions_ND: Directions) -> bytes:
    """Quantise the products of matrices of the layers of least relevance for images."""
    return quantise_dynamic(graph, _relevant_weights(model, images, directions_ND))


def quantise_with_images(graph: bytes, model: Model, images: Images, directions_ND: Directions) -> bytes:
    """Quantise weights and activations, with scales of images."""
    return quantise_static(graph, [model.normalise([image]) for image in images])


def encode_bf16(model: Model, graph: bytes | None) -> Encode:
    """Compute in torch with weights in bfloat16."""
    return _BfloatTower(_in_bfloat16(model.image_tower))


def encode_tome(model: Model, graph: bytes | None) -> Encode:
    """Compute in torch with tokens merged by ToMe."""
    from medclip.models.towers.merging_tower import tome_tower

    return tome_tower(model.image_tower)


def encode_pitome(model: Model, graph: bytes | None) -> Encode:
    """Compute in torch with tokens merged by PiToMe."""
    from medclip.models.towers.merging_tower import pitome_tower

    return pitome_tower(model.image_tower)


def encode_onnx(model: Model, graph: bytes | None) -> Encode:
    """Compute a graph in ONNX Runtime."""
    return OnnxTower(_given(graph))


def encode_onnx_int8(model: Model, graph: bytes | None) -> Encode:
    """Compute a graph in ONNX Runtime, the scales of activations from each image by itself."""
    return OnnxTower(_given(graph), one_by_one=True)


def encode_openvino(model: Model, graph: bytes | None) -> Encode:
    """Compute a graph in OpenVINO."""
    return OpenVinoTower(_given(graph), "f32", num_encoders(), _example(model, model.batch_size))


def encode_openvino_bf16(model: Model, graph: bytes | None) -> Encode:
    """Compute a graph in OpenVINO, in bfloat16."""
    return OpenVinoTower(_given(graph), "bf16", num_encoders(), _example(model, model.batch_size))


def encode_compiled(model: Model, graph: bytes | None) -> Encode:
    """Compute in torch, compiled."""
    return CompiledTower(model.image_tower, _example(model, max(2, model.batch_size)), num_encoders())


def encode_bf16_compiled(model: Model, graph: bytes | None) -> Encode:
    """Compute in torch with weights in bfloat16, compiled."""
    example = _example(model, max(2, model.batch_size)).to(torch.bfloat16)
    return _BfloatTower(CompiledTower(_in_bfloat16(model.image_tower), example, num_encoders()))


def _given(graph: bytes | None) -> bytes:
    assert graph is not None  # `make_graph` returns one for each back-end that runs one
    return graph


def _relevant_weights(model: Model, images: Images, directions_ND: Directions) -> list[Tensor]:
    """Return the weights of the linear layers that stay float32: bits are divided as LRP-QViT does, 8 or 32 each."""
    from medclip.models.layer_bits import allocate_bits, layer_relevance, linear_layers

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
    return [weight for weight, num_bits in zip(layers.values(), bits, strict=True) if num_bits == 32]


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


class CompiledTower:
    """Runs a tower that torch compiles to code of this processor or card (AOTInductor), exported with a free batch.

    It is compiled ahead of time and not as it runs: what runs has no guards that could send a batch another way, so
    that a vector does not depend on which thread or which batch came first. Compiling medclip-mini takes 30 s of
    processor time, which each run pays anew; its images then take 5.3 ms in the place of 13.6 (one thread of an AMD
    EPYC). Nothing compiled is kept or taken from a cache: machine code that lies in a shared folder is code that
    anybody may have put there.

    Args:
        tower: Tower in eval mode; its weights have one dtype and lie on one device.
        example: Input of the tower, [B, ...] with B > 1, of that dtype and on that device.
        num_threads: Batches that may be computed at once, each with one thread.

    Raises:
        MedclipError: PACK_INVALID where the tower cannot be exported or compiled.
    """

    def __init__(self, tower: nn.Module, example: Tensor, num_threads: int) -> None:
        try:
            with torch_threads(1), torch.no_grad(), quiet():
                self._run = _compile(tower, example.contiguous(), num_threads)
        except Exception as e:  # exporter, inductor and compiler have errors of many classes, some of them private
            raise MedclipError(
                Reason.PACK_INVALID,
                f"this image tower cannot be compiled ({type(e).__name__}).",
                hint="Use another back-end.",
            ) from e

    def __call__(self, batch: Tensor) -> Tensor:
        """Compute features [B, D] of a batch [B, ...], both of the dtype of the example."""
        return self._run(batch.contiguous())


def _compile(tower: nn.Module, example: Tensor, num_runners: int) -> Any:
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.package.package import load_package
    from torch._inductor.utils import fresh_cache

    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(tower, (example,), dynamic_shapes=({0: batch},))
    with TemporaryFolder("compile") as folder, fresh_cache(dir=str(folder)):
        package = str(folder / "tower.pt2")
        aoti_compile_and_package(program, package_path=package, inductor_configs=_SETTINGS)
        card = -1 if example.device.index is None else example.device.index
        return load_package(package, num_runners=num_runners, device_index=card)  # maps the code; the files may go then


_SETTINGS = {
    "cpp.threads": 1,  # of a batch; a run computes several batches at once
    "compile_threads": 1,  # no helpers that would outlive a run that is killed
    "freezing": True,  # weights are constants: normalisations fold into convolutions
}
