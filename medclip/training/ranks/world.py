"""The ranks of a run: who is there, on which device, and how they agree. One process is a world of one."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from medclip.errors import MedclipError, Reason

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
        own = values.detach().to(self.device, copy=True)
        dist.all_reduce(own, group=self.group)
        return own.cpu()

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
        own = values.detach().to(self.device).contiguous()
        parts = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(parts, own, group=self.group)
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
        own = None if error is None else [str(error.reason), error.message, error.where, error.hint]
        for rank, answer in enumerate(self.gather(own)):
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
    own = torch.device(device)
    if own.type == "cuda":
        own = torch.device("cuda", local)
        torch.cuda.set_device(own)
    theirs = dist.is_initialized()
    if not theirs:
        dist.init_process_group("nccl" if own.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        world = World(rank, size, own, dist.group.WORLD)
        yield world
        world.barrier()  # nobody leaves while another still talks to it
    finally:
        if not theirs:
            # What still holds on to the group (a wrapped model in a reference cycle) must go before it: torn down when
            # the interpreter ends, its threads abort the process.
            gc.collect()
            dist.destroy_process_group()
