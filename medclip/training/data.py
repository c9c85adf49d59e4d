"""Batches from shards: order and chance are functions of (seed, epoch, index), so that a stopped run goes on exactly.

No torch here.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.imaging.geometry import letterbox
from medclip.text.captions import CaptionRecord, draw_caption
from medclip.training.augment import apply_change, draw_change, names_a_side
from medclip.training.recipe import Augment

if TYPE_CHECKING:
    from medclip.shards.read import ShardReader

_CAPTION, _AUGMENT, _ORDER, _VALIDATION = range(4)  # one stream of chance per purpose
_AHEAD = 3


@dataclass(frozen=True, eq=False)
class Batch:
    """One step's input."""

    images: NDArray[np.uint8]
    """uint8 [B, S, S, 3]."""
    texts: tuple[str, ...]
    label_keys: tuple[str, ...]
    """Equal for records that carry the same labels."""
    wait_s: float = 0.0
    """Seconds the training waited for it."""


def order_of_epoch(size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Give the order of `size` samples in an epoch; depends on nothing else."""
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(size)


def label_key(record: CaptionRecord) -> str:
    """Give a text that is equal for records which the same statements are true of."""
    view = None if record.generic else record.view
    labels: Mapping[str, Any] = {} if record.generic else record.labels
    return json.dumps([record.generic, record.modality, view, labels], sort_keys=True)


class Batches:
    """Batches of a split.

    Args:
        reader: The split.
        batch_size: B; the rest of an epoch that does not fill a batch is left out (it is other samples each epoch).
        size_px: S.
        seed: Seed of order, captions and augmentation.
        augment: None for validation: letterboxed images, captions that stay the same.
        native_share: Share of captions quoted from the record.
        workers: Decoding threads.
        cache: Keep decoded images.

    Raises:
        MedclipError: NOTHING_TO_DO when the split is smaller than a batch.
    """

    def __init__(
        self,
        reader: ShardReader,
        *,
        batch_size: int,
        size_px: int,
        seed: int,
        augment: Augment | None = None,
        native_share: float = 0.3,
        workers: int = 2,
        cache: bool = True,
    ) -> None:
        if augment is not None and len(reader) < batch_size:
            raise MedclipError(
                Reason.NOTHING_TO_DO,
                f"the split has {len(reader)} samples, fewer than one batch of {batch_size}.",
                hint="Make train.batch_size smaller.",
            )
        self.reader, self.batch_size, self.size_px, self.seed = reader, batch_size, size_px, seed
        self._augment, self._native_share, self._workers = augment, native_share, workers
        self._cache: dict[int, tuple[NDArray[np.uint8], CaptionRecord]] | None = {} if cache else None

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return len(self.reader) // self.batch_size

    def training(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """Yield the batches of steps first_step to last_step - 1, counted from the start of the run."""
        yield from self._prepared(self._indices(s) for s in range(first_step, last_step))

    def validation(self, limit: int) -> Iterator[Batch]:
        """Yield the first samples of the split in order; the last batch may be smaller."""
        size = min(limit, len(self.reader))
        yield from self._prepared(
            [(0, i) for i in range(s, min(s + self.batch_size, size))] for s in range(0, size, self.batch_size)
        )

    def sample(self, epoch: int, index: int) -> tuple[NDArray[np.uint8], str, str]:
        """Make one sample: uint8 [S, S, 3], caption, label key."""
        image, record = self._read(index)
        purpose = _VALIDATION if self._augment is None else _CAPTION
        caption_rng = np.random.default_rng((self.seed, purpose, epoch, index))
        text = draw_caption(record, caption_rng, native_share=self._native_share)
        if self._augment is None:
            return letterbox(image, self.size_px), text, label_key(record)
        rng = np.random.default_rng((self.seed, _AUGMENT, epoch, index))
        may_flip = record.laterality is None and not names_a_side(text)
        change = draw_change(self._augment, rng, may_flip=may_flip)
        return apply_change(image, change, self.size_px), text, label_key(record)

    def _indices(self, step: int) -> list[tuple[int, int]]:
        epoch, batch = divmod(step, self.steps_per_epoch)
        order = order_of_epoch(len(self.reader), self.seed, epoch)
        return [(epoch, int(i)) for i in order[batch * self.batch_size : (batch + 1) * self.batch_size]]

    def _read(self, index: int) -> tuple[NDArray[np.uint8], CaptionRecord]:
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        sample = self.reader[index]
        found = (np.ascontiguousarray(sample.image), sample.record)
        if self._cache is not None:
            self._cache[index] = found
        return found

    def _prepared(self, plan: Iterator[list[tuple[int, int]]]) -> Iterator[Batch]:
        """Work a few batches ahead in threads; PIL lets go of the interpreter lock while it decodes and resamples."""
        waiting: deque[list[Future[tuple[NDArray[np.uint8], str, str]]]] = deque()
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="medclip-data")
        try:
            for members in plan:
                waiting.append([pool.submit(self.sample, epoch, i) for epoch, i in members])
                if len(waiting) > _AHEAD:
                    yield _collect(waiting.popleft())
            while waiting:
                yield _collect(waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _collect(futures: list[Future[tuple[NDArray[np.uint8], str, str]]]) -> Batch:
    start = time.perf_counter()
    parts = [f.result() for f in futures]
    waited = time.perf_counter() - start
    return Batch(np.stack([p[0] for p in parts]), tuple(p[1] for p in parts), tuple(p[2] for p in parts), waited)
