"""What depends on the device that computes: precision, products of float32 matrices, how fast a run goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch


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
