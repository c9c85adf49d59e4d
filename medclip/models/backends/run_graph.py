"""ONNX graphs computed by ONNX Runtime and by OpenVINO: one thread to a batch, as torch computes in a run."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor

from medclip.models.backends.onnx_graph import INPUT, OUTPUT, import_openvino
from medclip.models.backends.quiet import quiet


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
