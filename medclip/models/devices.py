"""Whether torch can compute on a device, asked before anything is read."""

from __future__ import annotations

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
            hint="Use cpu, or cuda with a GPU and a torch and a driver that know it.",
        )
