"""What torch computes on: a device, asked for before anything is read, and a number of threads."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from medclip.errors import MedclipError, Reason, did_you_mean

BATCH, CARD_BATCH = 4, 64
"""Images in one forward pass, on a processor and on a graphics card, which small batches do not fill.

On a processor small batches stay in the cache: EfficientNet-Lite0 at 224 px on Zen 4 encodes, with
1 and 2 threads, 79 and 113 images/s one by one, 83 and 152 in fours, 71 and 121 in sixteens, 58 and 104 in 32s."""
DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "meta")
"""Kinds of device that torch knows and a model may be asked for; a number may follow, as in cuda:1."""


def check_device(device: str) -> None:
    """Refuse a device that torch cannot compute on here.

    Args:
        device: Device as torch names it: "cpu", "cuda", "cuda:1".

    Raises:
        MedclipError: WRONG_USE.
    """
    if device == "cpu":
        return
    kind, colon, number = device.partition(":")
    if kind not in DEVICES or (colon and not number.isdecimal()):  # answered before torch is imported
        raise _unusable(device, did_you_mean(kind, DEVICES[:-1], "Devices are"))
    import torch

    try:
        usable = torch.zeros(1, device=device).device.type != "meta"
    except (RuntimeError, AssertionError, NotImplementedError):  # no such word, not in this torch, no driver, no card
        usable = False
    if not usable:
        raise _unusable(device, "Use cpu, or install a torch and a driver that know the device.")


class ComputingThread(threading.Thread):
    """A daemon thread that may be in torch when the program ends: the end waits for it, all together EXIT_S.

    Python takes a daemon thread away where it next asks for the interpreter's lock. In C++ this ends the process with
    "terminate called without an active exception" and code 134, in the place of its own. Whoever starts such a thread
    tells it to end; one that hangs for longer is where no lock is asked for.

    Args:
        target: Function that the thread calls.
        name: Name of the thread.
        args: Arguments of the function.
    """

    def __init__(self, target: Callable[..., object], name: str, args: tuple[Any, ...] = ()) -> None:
        super().__init__(target=target, name=name, args=args, daemon=True)
        _computing.add(self)


EXIT_S = 20.0
"""How long the end of the program waits for threads that compute."""
_computing: weakref.WeakSet[ComputingThread] = weakref.WeakSet()


@atexit.register
def _wait_for_computing() -> None:
    deadline = time.monotonic() + EXIT_S
    for thread in [thread for thread in _computing if thread.is_alive()]:
        thread.join(max(0.0, deadline - time.monotonic()))


def _unusable(device: str, hint: str) -> MedclipError:
    return MedclipError(Reason.WRONG_USE, f"torch cannot compute on the device {device!r} here.", hint=hint)


def check_batch_size(batch_size: int | None) -> None:
    """Refuse a number of images that no forward pass can have; None stands for the model's own.

    Raises:
        MedclipError: WRONG_USE.
    """
    if batch_size is not None and batch_size < 1:
        raise MedclipError(
            Reason.WRONG_USE, f"a batch has one image or more, not {batch_size}.", hint=f"Leave it out for {BATCH}."
        )


def default_batch(device: str) -> int:
    """Return how many images one forward pass has on a device unless another number is named."""
    return CARD_BATCH if kind_of(device) == "cuda" else BATCH


def kind_of(device: str) -> str:
    """Return the kind of a device: "cuda" of "cuda:1"."""
    return device.partition(":")[0]


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Have torch compute with so many threads for a while; None leaves them as they are.

    OpenMP threads wait for each other at every layer; beside reading processes on the same cores, a batch waits for a
    thread that is not running (2 loaded cores, one image at a time: 40 images/s with one thread, 2 with two).
    """
    import torch

    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(max(1, count))
        yield
    finally:
        torch.set_num_threads(before)
