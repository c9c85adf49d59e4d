"""What depends on the device that computes: the precision, and how float32 matrices are multiplied."""

from __future__ import annotations

from typing import Literal

import torch

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
