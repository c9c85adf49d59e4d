"""The budget that every method that learns step by step has: images at each rate, and rates to try.

A comparison of methods compares their tuning, too, so that it has to be the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping

from medclip.errors import MedclipError, Reason

STEPS, BATCH = 100, 32
"""Steps of so many images of a method that changes the towers. Others pass over the shots as often as these do."""
RATES: Mapping[str, tuple[float, ...]] = {
    "svd": (0.003, 0.001, 0.01),  # published few-shot rates: 0.0005 to 0.01, from base to novel up to 0.02
    "lora": (0.001, 0.0003, 0.003),
    "norm": (0.001, 0.0003, 0.003),
    "full": (0.0001, 0.00003, 0.0003),
    "coop": (0.002, 0.02, 0.2),  # the first is published; features that lie close together need a larger one
    "cocoop": (0.002, 0.02, 0.2),
    "biomedcoop": (0.0025, 0.025, 0.25),
    "clip-adapter": (0.01, 0.003, 0.03),
    "tip-f": (0.001, 0.0003, 0.003),
}
"""What each method tries; the first is taken where there is nothing to judge by."""


def passes(num_units: int) -> int:
    """Return how often the budget goes over so many units.

    Example:
        >>> passes(8), passes(32), passes(64)
        (100, 100, 50)
    """
    return -(-STEPS // -(-num_units // BATCH))


def check_schedule(method: str, lr: float | None, **counts: int | None) -> None:
    """Refuse a rate below 0 and counts below 1; None is left to the budget.

    Raises:
        MedclipError: WRONG_USE.
    """
    if lr is not None and not lr >= 0:
        raise MedclipError(Reason.WRONG_USE, f"lr of {method} is {lr}; it takes a number from 0.")
    for name, value in counts.items():
        if value is not None and value < 1:
            raise MedclipError(Reason.WRONG_USE, f"{name} of {method} is {value}; it takes at least 1.")
