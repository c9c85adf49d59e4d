"""What torch computes on: a device, asked for before anything is read, and a number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from medclip.errors import MedclipError, Reason


def check_device(device: str) -> None:
    """Refuse a device that torch cannot compute on here.

    Args:
        device: As torch names it: "cpu", "cuda", "cuda:1".

    Raises:
        MedclipError: WRONG_USE.
    """
    if device == "cpu":
        return
    import torch

    try:
        usable = torch.zeros(1, device=device).device.type != "meta"
    except (RuntimeError, AssertionError, NotImplementedError):  # no such word, not in this torch, no driver, no card
        usable = False
    if not usable:
        raise MedclipError(
            Reason.WRONG_USE,
            f"torch cannot compute on the device {device!r} here.",
            hint="Use cpu, or install a torch and a driver that know the device.",
        )


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
