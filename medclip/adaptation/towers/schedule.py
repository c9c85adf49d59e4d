"""Learning rates of few-shot training: one cosine from the first step to the last, and the reference's quirk."""

from __future__ import annotations

import math

from medclip.errors import MedclipError, Reason

FLOOR = 1e-6
"""What the cosine ends at."""


def cosine_rate(step: int, lr: float, period: int, floor: float = FLOOR) -> float:
    """Return the learning rate of a step.

    Args:
        step: From 0.
        lr: Of step 0.
        period: Steps until the floor is reached. Later steps climb back, as a cosine does.
        floor: The lowest rate.
    """
    return floor + (lr - floor) * (1 + math.cos(math.pi * step / period)) / 2


def learning_rates(
    num_steps: int, lr: float, *, num_epochs: int | None = None, compat: str | None = None
) -> list[float]:
    """Return the learning rate of every step.

    Args:
        num_steps: Of the whole training.
        lr: Of the first step.
        num_epochs: Passes over the examples; only `compat` looks at it.
        compat: "upstream": the period is the number of epochs though it counts steps, as in the reference's biomedical
            runs. With two steps an epoch the rate is at its floor after half of the training and back at its
            maximum at the end.

    Raises:
        MedclipError: WRONG_USE for another word, or without `num_epochs`.
    """
    if compat is None:
        period = num_steps
    elif compat == "upstream" and num_epochs:
        period = num_epochs
    else:
        raise MedclipError(
            Reason.WRONG_USE,
            f"there is no schedule for compat={compat!r} and {num_epochs} epochs.",
            hint='Leave compat out, or give compat="upstream" with the number of epochs.',
        )
    return [cosine_rate(step, lr, period) for step in range(num_steps)]
