"""A tower as an ONNX graph: exported with a free batch, its products of matrices quantised, and run by two libraries.

ONNX Runtime and OpenVINO have one thread to a batch, as torch computes in a run.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medclip.errors import MedclipError, Reason
from medclip.files.temporary_folder import TemporaryFolder


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' warnings, log lines and prints about their own insides to themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


INPUT, OUTPUT = "images", "features"
_MOST_BYTES = 2**31 - 1
"""What one protobuf message may hold."""


def export_onnx(tower: nn.Module, example: Tensor) -> bytes:
    """Export an image tower.

    The same tower gives the same bytes.

    Args:
        tower: Tower in eval mode, float32.
        example: Input of the tower, float32 [B, ...] with B > 1: from an example of one image the exporter may take the
            batch for fixed.

    Returns:
        ONNX, with weights inside: input `images` [batch, ...], output `features` [batch, D].

    Raises:
        MedclipError: PACK_INVALID where the tower has operations that the exporter does not know, or is of more than
            2 GB.
    """
    try:
        with torch.no_grad(), quiet():
            program: Any = torch.onnx.export(
                _Plain(tower).eval(),
                (example.contiguous(),),
                dynamo=True,
                verbose=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            )
        graph = program.model_proto
        size = graph.ByteSize()
    except Exception as e:  # the exporter has errors of many classes, some of them private
        raise MedclipError(
            Reason.PACK_INVALID,
            f"this image tower cannot be written as an ONNX graph ({type(e).__name__}).",
            hint="Use a back-end of torch.",
        ) from e
    if size > _MOST_BYTES:
        raise MedclipError(
            Reason.PACK_INVALID,
            "this image tower is larger than the 2 GB of one ONNX file.",
            hint="Use a back-end of torch.",
        )
    return graph.SerializeToString(deterministic=True)


def quantise_dynamic(graph: bytes, in_float32: Sequence[Tensor] = ()) -> bytes:
    """Quantise the products of matrices: weights to int8, one scale for each column; activations while it runs.

    Convolutions, such as that of a transformer's patches, stay float32.

    Args:
        graph: Graph from `export_onnx`.
        in_float32: Weights [O, I] of linear layers that stay as they are.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with TemporaryFolder("onnx") as folder, quiet():
        plain, prepared, small = (Path(folder, name) for name in ("plain.onnx", "prepared.onnx", "int8.onnx"))
        onnx.save(onnx.load_from_string(graph), plain)
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
        quantize_dynamic(
            prepared,
            small,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=nodes_of_weights(onnx.load(prepared), in_float32) if in_float32 else [],
        )
        return onnx.load(small).SerializeToString(deterministic=True)


def nodes_of_weights(model: Any, weights: Sequence[Tensor]) -> list[str]:
    """Return the names of the products of matrices that a graph computes with some weights.

    The exporter and the optimiser rename and transpose weights, and cut those of packed attention in three, but they
    keep every number.

    Args:
        model: The ONNX model.
        weights: [O, I] each.
    """
    from onnx import numpy_helper

    wanted = {_print_of(part) for weight in weights for part in (weight, *weight.chunk(3))}
    holds = {
        tensor.name: _print_of(torch.from_numpy(numpy_helper.to_array(tensor).copy()))
        for tensor in model.graph.initializer
        if len(tensor.dims) == 2
    }
    return [
        node.name
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm") and any(holds.get(name) in wanted for name in node.input)
    ]


def _print_of(matrix: Tensor) -> bytes:
    """Return what a matrix and its transpose have in common, and no other matrix."""
    upright = matrix.detach().float()
    prints = (
        repr(tuple(turned.shape)).encode() + turned.contiguous().numpy().tobytes() for turned in (upright, upright.T)
    )
    return min(hashlib.sha256(content).digest() for content in prints)


def quantise_static(graph: bytes, examples: Sequence[Tensor]) -> bytes:
    """Quantise weights and activations by NNCF's post-training quantisation, with scales that hold for every image.

    Args:
        graph: Graph from `export_onnx`.
        examples: Inputs of the tower, float32 [1, ...] each: they decide the scales.
    """
    import_openvino()  # without its telemetry, which NNCF would use, too
    import onnx

    with quiet():
        import nncf

        model = onnx.load_from_string(graph)
        is_transformer = any(node.op_type == "Softmax" for node in model.graph.node)
        arrays = [example.contiguous().numpy() for example in examples]
        small: Any = nncf.quantize(
            model,
            nncf.Dataset(arrays, lambda array: {INPUT: array}),
            subset_size=len(arrays),
            model_type=nncf.ModelType.TRANSFORMER if is_transformer else None,
        )
        return small.SerializeToString(deterministic=True)


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry: of itself it posts to google-analytics.com whenever it is imported.

    Where the module of the telemetry cannot be imported, OpenVINO does without.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType] (what Python asks for)
    import openvino

    return openvino


class _Plain(nn.Module):
    """A tower that returns one tensor; no attribute of the tower's own forward is exported."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, images: Tensor) -> Tensor:
        return self.tower(images)


class OnnxTower:
    """Runs a graph with ONNX Runtime.

    Args:
        graph: ONNX, with weights inside.
        one_by_one: Whether each image runs by itself. Dynamic quantisation takes the scale of activations from all that
            is in a batch, and the vector of an image would depend on its neighbours. It costs nothing: a ViT-B/16 was
            4 % faster so than in batches of eight.
    """

    def __init__(self, graph: bytes, *, one_by_one: bool = False) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._one_by_one = one_by_one

    def __call__(self, batch: Tensor) -> Tensor:
        """Compute features, float32 [B, D], of a batch [B, ...]."""
        parts = batch.split(1) if self._one_by_one else (batch,)
        rows = [self._session.run([OUTPUT], {INPUT: part.contiguous().numpy()})[0] for part in parts]
        return torch.cat([torch.from_numpy(row) for row in rows])


class OpenVinoTower:
    """Runs a graph with OpenVINO.

    Args:
        graph: ONNX, with weights inside.
        precision: Precision: "f32" or "bf16". It is always named: on processors that know bfloat16, OpenVINO takes it
            unasked.
        num_streams: Batches that may be computed at once, each with one thread.
        example: Input of the tower, float32 [B, ...]. It is computed once: OpenVINO prepares a model at its first
            batch, and two first batches at once waited for each other for ever (in a few of twenty trials).
    """

    def __init__(self, graph: bytes, precision: str, num_streams: int, example: Tensor) -> None:
        core = import_openvino().Core()
        with quiet():
            model = core.read_model(graph)
        self._compiled: Any = core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": precision,
                "NUM_STREAMS": num_streams,
                "INFERENCE_NUM_THREADS": num_streams,
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._local = threading.local()
        self._first = threading.Lock()
        self(example)

    def __call__(self, batch: Tensor) -> Tensor:
        """Compute features, float32 [B, D], of a batch [B, ...]."""
        request = getattr(self._local, "request", None)
        array = batch.contiguous().numpy()
        if request is None:  # one of its own for each thread; the first batch of each goes alone
            with self._first:
                request = self._local.request = self._compiled.create_infer_request()
                return torch.from_numpy(request.infer({0: array})[0].copy())
        return torch.from_numpy(request.infer({0: array})[0].copy())
