"""Batches and the memory: what does not fit is computed in halves, and no image loses its vector or its place."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.models.encoding.parallel_encoding import Batches, encode_within_memory, is_out_of_memory

_FULL_CPU = "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."


class _Narrow:
    """A model of the mean of an image, whose memory holds some images at a time."""

    preprocess: Any = None
    batch_size = 8
    dim = 1

    def __init__(self, holds: int, error: Exception) -> None:
        self.holds, self.error, self.asked = holds, error, []

    def encode_image(self, images: Any, *, batch_size: int | None = None) -> NDArray[np.float32]:
        step = batch_size or self.batch_size
        self.asked.append(step)
        if step > self.holds:
            raise self.error
        return np.array([[image.mean()] for image in images], np.float32)


def _images(num: int) -> list[NDArray[np.uint8]]:
    return [np.full((2, 2, 3), n, np.uint8) for n in range(num)]


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError(_FULL_CPU), torch.OutOfMemoryError("CUDA out of memory. Tried to ...")]
)
def test_a_batch_that_the_memory_does_not_hold_is_halved_until_it_does(error: Exception) -> None:
    model, sizes = _Narrow(3, error), []
    features = encode_within_memory(model, _images(7), sizes.append)
    assert features[:, 0].tolist() == list(range(7))
    assert (model.asked, sizes) == ([8, 4, 2], [2])


def test_rows_are_those_of_a_machine_with_enough_memory_and_each_batch_is_tried_whole() -> None:
    results: list[list[tuple[int, float]]] = []
    for holds in (8, 2):
        got: list[tuple[int, float]] = []
        model = _Narrow(holds, MemoryError())
        with ThreadPoolExecutor(1) as threads:
            batches = Batches(model, threads, 1, lambda owner, row, got=got: got.append((owner, float(row[0]))))
            for owner in range(20):
                batches.add(owner, np.stack(_images(20)[owner : owner + 1]))
            batches.wait()
        results.append(got)
        assert model.asked.count(8) == 3
    assert results[0] == results[1] == [(n, float(n)) for n in range(20)]


def test_not_even_one_image_is_the_end_of_the_call_and_no_file_is_blamed() -> None:
    with pytest.raises(MedclipError) as caught:
        encode_within_memory(_Narrow(0, MemoryError()), _images(3))
    assert caught.value.reason is Reason.OUT_OF_MEMORY
    with pytest.raises(MedclipError):
        caught.value.problem()


def test_any_other_error_of_a_model_is_left_as_it_is() -> None:
    model = _Narrow(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        encode_within_memory(model, _images(3))
    assert model.asked == [8]
    assert not is_out_of_memory(ValueError("out of memory"))
