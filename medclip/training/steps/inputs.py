"""What a step computes with, as tensors: made from a batch on the host, and brought to the device ahead of the step."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medclip.errors import MedclipError
from medclip.models.devices import ComputingThread
from medclip.models.inputs.preprocess import Preprocess
from medclip.objectives.pairs import Pairs
from medclip.sample import SIDES
from medclip.training.batches.loader import TEXT, Batch, Batches
from medclip.training.batches.sample_texts import DrawnRole, no_texts
from medclip.training.batches.slots import NUM_KEYS

_AHEAD = 1
"""Inputs that lie ready; another is being made and a third is computed with."""
_PATIENCE_S = 5


class Exams(NamedTuple):
    """What is known of the views and captions of examinations, on one device."""

    view_types_BV3: Tensor
    """int64: numbers of side, position and kind; -1 where there is no view."""
    text_parts_BT: Tensor
    """int64: number of the side that a caption is about; -1 for all that is shown."""
    text_keys_BT: Tensor
    """int64: equal for equal captions."""

    @property
    def there_BV(self) -> Tensor:
        """Which views there are."""
        return self.view_types_BV3[:, :, 0] >= 0

    @property
    def sides_BV(self) -> Tensor:
        """Number of the side that a view shows; -1 where it is not known."""
        side_BV = self.view_types_BV3[:, :, 0]
        return torch.where(side_BV < len(SIDES), side_BV, -1)

    def of(self, part: slice | Tensor) -> Exams:
        """Return those of some samples."""
        return Exams(*(x[part] for x in self))


def exams_of(batch: Batch) -> Exams | None:
    """Make it of a batch, on the CPU; None where samples are single images."""
    if batch.view_types is None or batch.text_parts is None:
        return None
    keys_BT = np.stack(np.split(batch.pair_keys[:, TEXT], batch.num_texts), axis=1)
    return Exams(*(torch.from_numpy(np.ascontiguousarray(x)) for x in (batch.view_types, batch.text_parts, keys_BT)))


class RoleInputs(NamedTuple):
    """Texts of one role of the b samples of a batch, on one device: K of each."""

    mask_BK: Tensor
    """bool: which of its K texts each sample has; of tags, which of the words of `data.tags` it states."""
    has_B: Tensor
    """bool: which samples have texts of this role; False for one that takes no part."""
    tokens_BKL: Tensor
    """int64; L = 0 where the text tower does not read them."""
    num_tokens: int
    """Columns that the longest of them needs."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """The tensors of one step of one rank, all on one device."""

    images: Tensor
    """uint8 [V * b, S, S, 3] or packed patches, not normalised: a quarter of the bytes that floats would take."""
    tokens_BL: Tensor
    """int64 [T * b, L]."""
    num_tokens: int
    """Columns that the longest caption needs, a multiple of 8 or all: known on the host."""
    pairs: Pairs = field(default_factory=Pairs)
    """Which samples are positives of each other, which take part, and how much each counts."""
    num_views: int = 1
    """As `Batch.num_views`."""
    valid_B: Tensor | None = None
    """bool [b]: which samples take part; None where all do."""
    mask_BL: Tensor | None = None
    """bool [V * b, L]: hidden patches."""
    decoded_BL: Tensor | None = None
    """bool [V * b, L]: patches that are guessed; None where those are that are hidden."""
    extra: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """What single losses need, by their names: `medclip.training.losses`."""
    targets: dict[str, Tensor] = field(default_factory=dict)
    """By task, float32 [b, C] or [b, 1]: what a head should say, from `targets_of`."""
    num_texts: int = 1
    """As `Batch.num_texts`."""
    exams: Exams | None = None
    """Which views and captions there are; None where samples are single images."""
    there_BV: NDArray[np.bool_] | None = None
    """Which views there are; on the host, which chooses what goes through the tower."""
    step: int = 0
    """Number of the step, from 0."""
    texts: Mapping[str, RoleInputs] = field(default_factory=dict)
    """Texts beside the captions, by their role, that losses read."""

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.images) // self.num_views

    def to(self, device: torch.device) -> Inputs:
        """Copy to a device; the host does not wait for it where the tensors are pinned."""
        return self._each(lambda x: x.to(device, non_blocking=True))

    def pinned(self) -> Inputs:
        """Copy into pages from which a card fetches by itself; torch uses those of earlier inputs again."""
        return self._each(lambda x: x.pin_memory())

    def used_on(self, stream: Any) -> None:
        """Keep the memory until a stream is done with it."""
        self._each(lambda x: x.record_stream(stream) or x)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        def maybe(x: Tensor | None) -> Tensor | None:
            return None if x is None else change(x)

        return Inputs(
            change(self.images),
            change(self.tokens_BL),
            self.num_tokens,
            each_of(self.pairs, change),
            self.num_views,
            maybe(self.valid_B),
            maybe(self.mask_BL),
            maybe(self.decoded_BL),
            {loss: {name: change(x) for name, x in of.items()} for loss, of in self.extra.items()},
            {name: change(x) for name, x in self.targets.items()},
            self.num_texts,
            None if self.exams is None else Exams(*(change(x) for x in self.exams)),
            self.there_BV,
            self.step,
            {
                role: RoleInputs(change(of.mask_BK), change(of.has_B), change(of.tokens_BKL), of.num_tokens)
                for role, of in self.texts.items()
            },
        )


def each_of(pairs: Pairs, change: Callable[[Tensor], Tensor]) -> Pairs:
    """Return pairs with each of their tensors changed."""
    given = {name: value for name, value in vars(pairs).items() if value is not None}
    return Pairs(**{name: change(value) for name, value in given.items()})


def empty_batch(
    size: int,
    preprocess: Preprocess,
    context_length: int,
    *,
    num_views: int = 1,
    num_texts: int = 1,
    of_exam: bool = False,
    weighted: bool = False,
    roles: Sequence[DrawnRole] = (),
) -> Batch:
    """Make a batch of which no sample takes part, with the images and captions of `size` samples."""
    texts, none = size * num_texts, ("",) * size
    images = np.zeros((size * num_views, *preprocess.image_shape), preprocess.image_dtype)
    tokens, keys = np.zeros((texts, context_length), np.int32), np.full((texts, NUM_KEYS), -1)
    return Batch(
        images,
        tokens,
        min(8, context_length),
        keys,
        ("",) * texts,
        none,
        none,
        none,
        np.zeros(size, bool),
        num_views=num_views,
        num_texts=num_texts,
        weights=np.ones(size, np.float32) if weighted else None,
        view_types=np.full((size, num_views, 3), -1) if of_exam else None,
        text_parts=np.full((size, num_texts), -1) if of_exam else None,
        roles={role.name: no_texts(role, size, context_length) for role in roles},
    )


def role_inputs(batch: Batch) -> dict[str, RoleInputs]:
    """Make the texts beside the captions of a batch, on the CPU."""
    return {
        role: RoleInputs(
            torch.from_numpy(of.mask_BK),
            torch.from_numpy(of.has_B),
            torch.from_numpy(of.tokens).long(),
            of.num_tokens,
        )
        for role, of in batch.roles.items()
    }


@dataclass(frozen=True, eq=False)
class Fed:
    """Inputs on the device, and what was known of the data when they were made."""

    inputs: Inputs | None
    """None where the batch could not be read."""
    error: MedclipError | None = None
    """Why it could not, or why too many samples could not be used."""
    seen: int = 0
    bad: dict[str, int] = field(default_factory=dict)
    """Samples of this rank so far, and those of them that could not be used, by reason."""
    wait_s: float = 0.0
    """Seconds the training waited for it."""
    ready: Any = None


class Feed:
    """Takes batches and brings their inputs to the device in a thread and a stream of its own.

    So reading, pinning and copying go on while the device computes. On a CPU it is the same without pinning.

    Args:
        batches: Iterator of batches.
        prepare: Function that makes the inputs of a batch and a step number, on the CPU.
        device: Device of the steps.
        first_step: Number of the first step, counted from the run's start.
        last_step: Number of the last step, plus one.
    """

    def __init__(
        self,
        batches: Batches,
        prepare: Callable[[Batch, int], Inputs],
        device: torch.device,
        first_step: int,
        last_step: int,
    ) -> None:
        self._batches, self._prepare, self._device = batches, prepare, device
        self._steps = range(first_step, last_step)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._queue: queue.Queue[Fed | BaseException] = queue.Queue(_AHEAD)
        self._closed = threading.Event()
        self._thread = ComputingThread(self._work, "medclip-feed")
        self._thread.start()

    def __iter__(self) -> Iterator[Fed]:
        """Yield the inputs of each step; after one that could not be read, that error again and again.

        Raises:
            Exception: What is no MedclipError.
        """
        fed = Fed(None)
        for _ in self._steps:
            if fed.error is None or fed.inputs is not None:
                start = time.perf_counter()
                item = self._queue.get()
                if isinstance(item, BaseException):
                    raise item
                fed = replace(item, wait_s=time.perf_counter() - start)
                if self._stream is not None and fed.inputs is not None:
                    stream = torch.cuda.current_stream(self._device)
                    stream.wait_event(fed.ready)
                    fed.inputs.used_on(stream)
            yield fed

    def close(self) -> None:
        """End the thread; batches that lie ready are dropped."""
        self._closed.set()
        while not self._queue.empty():
            self._queue.get_nowait()
        self._thread.join(_PATIENCE_S)

    def _work(self) -> None:
        batches = self._batches.training(self._steps.start, self._steps.stop)
        try:
            for step, batch in zip(self._steps, batches, strict=False):
                data = self._batches
                bad = {str(reason): count for reason, count in data.bad.items()}
                fed = self._moved(self._prepare(batch, step), Fed(None, data.over_budget(), data.seen, bad))
                batch.release()  # they are copied now, and only once
                self._offer(fed)
                if self._closed.is_set():
                    return
        except MedclipError as e:
            self._offer(Fed(None, e))
        except BaseException as e:
            self._offer(e)
        finally:
            batches.close()  # type: ignore[attr-defined]

    def _moved(self, inputs: Inputs, fed: Fed) -> Fed:
        if self._stream is None:
            return replace(fed, inputs=replace(inputs, images=inputs.images.clone()).to(self._device))
        with torch.cuda.stream(self._stream):
            moved = inputs.pinned().to(self._device)
            return replace(fed, inputs=moved, ready=self._stream.record_event())

    def _offer(self, item: Fed | BaseException) -> None:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return
