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

from medclip.models.devices import torch_threads

if TYPE_CHECKING:
    from medclip.models.preprocess import Images, Preprocess

_MAX_ENCODERS = 8


class ImageEncoder(Protocol):
    """A loaded model, as far as images are encoded with it."""

    preprocess: Preprocess
    batch_size: int

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        ...

    def encode_image(self, images: Images) -> NDArray[np.float32]:
        """Encode images at the model's size into float32 [N, D] of unit norm."""
        ...


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
        threads: From `encoder_threads`.
        num_threads: Their number; twice as many batches may be under way.
        receive: Called with an owner and the features of one of its images, float32 [D].
    """

    def __init__(
        self,
        model: ImageEncoder,
        threads: Executor,
        num_threads: int,
        receive: Callable[[Any, NDArray[np.float32]], None],
    ) -> None:
        self._model, self._threads, self._receive = model, threads, receive
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
        self._pending.append((owners, self._threads.submit(self._model.encode_image, images)))
        if len(self._pending) > self._ahead:
            self._deliver_oldest()

    def _deliver_oldest(self) -> None:
        owners, future = self._pending.popleft()
        for owner, feature in zip(owners, future.result(), strict=True):
            self._receive(owner, feature)
