"""Images encoded beside each other, one thread a batch: results that depend neither on the cores nor on the caller."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.models.devices import torch_threads

if TYPE_CHECKING:
    from medclip.models.inputs.preprocess import Images, Preprocess

_MAX_ENCODERS = 8
_NO_MEMORY = ("out of memory", "can't allocate memory", "failed to allocate memory", "bad_alloc", "bad allocation")
"""What torch says on a CPU and of a card, ONNX Runtime and OpenVINO."""


class ImageEncoder(Protocol):
    """A loaded model, as far as images are encoded with it."""

    preprocess: Preprocess
    batch_size: int

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        ...

    def encode_image(self, images: Images, *, batch_size: int | None = None) -> NDArray[np.float32]:
        """Encode images at the model's size into float32 [N, D] of unit norm."""
        ...


def encode_within_memory(
    model: ImageEncoder, images: Images, halved: Callable[[int], None] = lambda _: None
) -> NDArray[np.float32]:
    """Encode one batch; where the memory does not hold it, half of it at a time, and so on down to single images.

    The next batch is tried whole again, so that vectors depend on the memory there was as little as they can: a forward
    pass of another shape may change their last bits (4e-8 in medclip-mini), and nothing else.

    Args:
        model: A loaded model.
        images: A batch at the model's size, at most.
        halved: Function called with the number of images at a time that the memory did hold, where those were not all.

    Raises:
        MedclipError: OUT_OF_MEMORY where not even one image can be computed.
    """
    size = model.batch_size
    try:
        return model.encode_image(images)
    except Exception as error:  # torch, ONNX Runtime and OpenVINO each have their own
        if not is_out_of_memory(error):
            raise
    while size > 1:
        size = (size + 1) // 2
        _free_memory()
        try:
            features_ND = model.encode_image(images, batch_size=size)
            halved(size)
            return features_ND
        except Exception as error:  # as above
            if not is_out_of_memory(error):
                raise
    raise MedclipError(
        Reason.OUT_OF_MEMORY,
        "there is no memory left for the model to compute even one image.",
        hint="Free some, allow less for reading with --memory, or name another --device; the same command goes on.",
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a model ended for want of memory, of the machine or of its card."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _NO_MEMORY)


def _free_memory() -> None:
    """Hand back what torch keeps of a card's memory for later."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def num_encoders() -> int:
    """Return how many batches are computed at once on this machine."""
    return max(1, min(os.cpu_count() or 1, _MAX_ENCODERS))


@contextmanager
def encoder_threads() -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """Yield threads that compute one batch each, and their number."""
    num = num_encoders()
    with torch_threads(1), ThreadPoolExecutor(num, thread_name_prefix="medclip-encoder") as threads:
        yield threads, num


class Batches:
    """Collects images of many owners into batches and hands each owner its features, in order.

    Small layers gain little from several threads, and with one thread a batch's result does not depend on how many
    cores the machine has.

    Args:
        model: A loaded model.
        threads: Threads from `encoder_threads`.
        num_threads: Number of the threads; twice as many batches may be under way.
        receive: Function called with an owner and the features of one of its images, float32 [D].
        halved: Function called from any thread, as `encode_within_memory` calls it.
    """

    def __init__(
        self,
        model: ImageEncoder,
        threads: Executor,
        num_threads: int,
        receive: Callable[[Any, NDArray[np.float32]], None],
        halved: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._model, self._threads, self._receive, self._halved = model, threads, receive, halved
        self._ahead = 2 * num_threads
        self._owners: list[Any] = []
        self._images: list[NDArray[np.uint8]] = []
        self._pending: deque[tuple[list[Any], Future[NDArray[np.float32]]]] = deque()

    def add(self, owner: Any, images: Images) -> None:
        """Take the images of one owner, at the model's size."""
        for image in images:
            self._owners.append(owner)
            self._images.append(image)
        while len(self._images) >= self._model.batch_size:
            self._submit(self._model.batch_size)

    def close(self) -> None:
        """Send the last, short batch off. The model fills it up, so neighbours do not matter."""
        if self._images:
            self._submit(len(self._images))

    def wait(self) -> None:
        """Hand out all that is left."""
        self.close()
        while self._pending:
            self._deliver_oldest()

    def _submit(self, count: int) -> None:
        images, self._images = self._images[:count], self._images[count:]
        owners, self._owners = self._owners[:count], self._owners[count:]
        self._pending.append((owners, self._threads.submit(encode_within_memory, self._model, images, self._halved)))
        if len(self._pending) > self._ahead:
            self._deliver_oldest()

    def _deliver_oldest(self) -> None:
        owners, future = self._pending.popleft()
        for owner, feature in zip(owners, future.result(), strict=True):
            self._receive(owner, feature)
