"""The processes of a run, which may be one: what they tell each other, on which device, how precisely and fast."""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist

from medclip.errors import MedclipError, Reason


class Pace:
    """Images a second since the last reading, and the shares of the time in which host and device waited.

    Args:
        device: Device of the steps. A CPU waits for nobody; a card's waiting is measured between the end of a step and
            the beginning of the next (gaps between two kernels of a step are not seen).
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._events: list[torch.cuda.Event] = []
        self.begin()

    def begin(self) -> None:
        """Begin to measure."""
        self._since, self._images, self._waited_s = time.perf_counter(), 0, 0.0

    def tick(self) -> None:
        """Mark the beginning or the end of a step on the device; called in turn."""
        if self._device.type == "cuda":
            self._events.append(torch.cuda.Event(enable_timing=True))
            self._events[-1].record()

    def count(self, images: int, waited_s: float) -> None:
        """Count a step.

        Args:
            images: Number of images of all ranks.
            waited_s: Seconds this rank waited for its share of them.
        """
        self._images, self._waited_s = self._images + images, self._waited_s + waited_s

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what is no training."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start
        self._events = []

    def read(self) -> dict[str, float]:
        """Return images_s, data_wait and, on a card that is done with its steps, device_idle and gpu_mb.

        The next reading begins here.
        """
        spent_s = max(time.perf_counter() - self._since, 1e-9)
        values = {"images_s": self._images / spent_s, "data_wait": min(self._waited_s / spent_s, 1.0)}
        self.begin()
        if self._device.type == "cuda":
            values |= self._idle() | {"gpu_mb": torch.cuda.max_memory_allocated(self._device) / 2**20}
        return values

    def _idle(self) -> dict[str, float]:
        """Add up the gaps from each end to the next beginning; the last end is kept."""
        events, self._events = self._events, self._events[-1:]
        gaps = [a.elapsed_time(b) for a, b in zip(events[-3::-2], events[-2::-2], strict=False)]
        return {"device_idle": sum(gaps) / max(events[0].elapsed_time(events[-1]), 1e-6)} if gaps else {}


Precision = Literal["fp32", "bf16"]


def choose_precision(wanted: Literal["auto", "fp32", "bf16"], device: torch.device, before: str | None) -> Precision:
    """Return the numbers that the towers compute with.

    Args:
        wanted: The recipe's choice of precision; "auto" is bfloat16 on cards that have it, and float32 elsewhere.
        device: Device of this run.
        before: Precision of the run's last checkpoint, None without one. "auto" stays with it, so that a run that goes
            on elsewhere does not become another run.
    """
    if wanted != "auto":
        return wanted
    if before is not None:
        return "bf16" if before == "bf16" else "fp32"
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def allow_fast_products(device: torch.device) -> None:
    """Let a card multiply float32 matrices in TF32 (10 bits instead of 23); losses ask for all bits themselves."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")


T = TypeVar("T")
_CPU = torch.device("cpu")
TIMEOUT = timedelta(minutes=30)
"""Longer than any step, validation or checkpoint: after it a rank that waits for a lost one gives up."""

_LONG = timedelta(days=7)


@dataclass(frozen=True, eq=False)
class World:
    """This process's place among the ranks. `torchrun` says it in RANK, WORLD_SIZE and LOCAL_RANK."""

    rank: int = 0
    size: int = 1
    device: torch.device = _CPU
    group: Any = None
    """torch.distributed process group; None in a world of one."""

    @property
    def is_first(self) -> bool:
        """Whether this rank writes and speaks for all."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.group is not None:
            self.sum(torch.zeros(1))

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum a small tensor over the ranks; every rank gets the result, on the CPU."""
        if self.group is None:
            return values
        total = values.detach().to(self.device, copy=True)
        dist.all_reduce(total, group=self.group)
        return total.cpu()

    def add(self, values: torch.Tensor) -> None:
        """Add a small tensor up over the ranks, in place, on its device: nobody waits for it."""
        if self.group is not None:
            dist.all_reduce(values, group=self.group)

    def gather(self, value: Any) -> list[Any]:
        """Return the JSON values of all ranks, in order of rank, to every rank. (torch's own way would pickle them.)"""
        if self.group is None:
            return [value]
        data = json.dumps(value).encode()
        lengths = torch.zeros(self.size, dtype=torch.int64)
        lengths[self.rank] = len(data)
        lengths = self.sum(lengths)
        buffer = torch.zeros(self.size, int(lengths.max()), dtype=torch.int32)
        buffer[self.rank, : len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8).int()
        buffer = self.sum(buffer).to(torch.uint8)
        return [json.loads(bytes(row[:n].tolist())) for row, n in zip(buffer, lengths.tolist(), strict=True)]

    def rows(self, values: torch.Tensor) -> torch.Tensor:
        """Join the rows of all ranks, equally many of each, in order of rank; every rank gets them, on the CPU."""
        if self.group is None:
            return values.cpu()
        values_here = values.detach().to(self.device).contiguous()
        parts = [torch.empty_like(values_here) for _ in range(self.size)]
        dist.all_gather(parts, values_here, group=self.group)
        return torch.cat(parts).cpu()

    def first(self, work: Callable[[], T]) -> T | None:
        """Do something on the first rank while the others wait. What it raises, all raise.

        Returns:
            The result on the first rank, None on the others.

        Raises:
            MedclipError: What the first rank raised; of another kind of error the others hear that there was one.
        """
        result: T | None = None
        caught: MedclipError | None = None
        other: Exception | None = None
        if self.is_first:
            try:
                result = work()
            except MedclipError as e:
                caught = e
            except Exception as e:
                other, caught = e, MedclipError(Reason.READ_ERROR, f"rank 0 failed ({type(e).__name__}).")
        try:
            self.agree(caught)
        except MedclipError:
            if other is not None:
                raise other from None
            raise
        return result

    def without_hurry(self) -> World:
        """Return the same ranks as a world that waits for days, for what a run does once. Every rank must call it."""
        if self.group is None:
            return self
        return World(self.rank, self.size, _CPU, dist.new_group(backend="gloo", timeout=_LONG))

    def agree(self, error: MedclipError | None) -> None:
        """Raise the error of the lowest rank that has one, on all ranks; none where none has.

        Raises:
            MedclipError: That error.
        """
        fields = None if error is None else [str(error.reason), error.message, error.where, error.hint]
        for rank, answer in enumerate(self.gather(fields)):
            if answer is not None:
                if rank == self.rank and error is not None:
                    raise error
                reason, message, where, hint = answer
                raise MedclipError(Reason(reason), message, where=where, hint=hint)


@contextmanager
def joined(device: str) -> Iterator[World]:
    """Join the world that `torchrun` started, or be a world of one. A process group that is there already is used.

    Args:
        device: Device: "cpu", "cuda", "cuda:N". Under torchrun "cuda" is the device with the rank's local number.

    Raises:
        MedclipError: WRONG_USE when torchrun's variables are incomplete.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(device=torch.device(device))
        return
    try:
        rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    except (KeyError, ValueError) as e:
        raise MedclipError(
            Reason.WRONG_USE,
            "WORLD_SIZE is set, but RANK and LOCAL_RANK are not numbers.",
            hint="Start the ranks with torchrun, or unset WORLD_SIZE.",
        ) from e
    on_device = torch.device(device)
    if on_device.type == "cuda":
        on_device = torch.device("cuda", local)
        torch.cuda.set_device(on_device)
    theirs = dist.is_initialized()
    if not theirs:
        dist.init_process_group("nccl" if on_device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        world = World(rank, size, on_device, dist.group.WORLD)
        yield world
        world.barrier()  # nobody leaves while another still talks to it
    finally:
        if not theirs:
            # What still holds on to the group (a wrapped model in a reference cycle) must go before it: torn down when
            # the interpreter ends, its threads abort the process.
            gc.collect()
            dist.destroy_process_group()
