"""The budget that every method that learns step by step has: images at each rate, and rates to try.

A comparison of methods compares their tuning, too, so that it has to be the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.shot_features import Judge, Shots
from medclip.adaptation.methods import Fitted
from medclip.errors import MedclipError, Reason
from medclip.statistics.metrics.selection_score import log_loss

if TYPE_CHECKING:
    from medclip.models.model import Model


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
    "ranking": (0.0005, 0.0001, 0.002),
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


_FOLDS = 2
"""Without validation examples each rate is learned so many times over; a training is dear."""


def learn_at_best_rate(
    base: Model,
    shots: Shots,
    method: str,
    learn: Callable[[Examples, float], Fitted],
    *,
    lr: float | None,
    seed: int,
    loss_of: Callable[[NDArray[Any], NDArray[Any]], float] = log_loss,
) -> Fitted:
    """Learn from the shots at the rate of the lowest log loss on validation examples, or on folds of the shots.

    Args:
        base: The base model.
        shots: The checked examples.
        method: Name of the method whose `RATES` are tried.
        learn: Function that learns from examples at a rate.
        lr: The rate, where it is not to be chosen.
        seed: Seed of the folds.
        loss_of: Loss of logits under their truths, that rates are compared by.

    Returns:
        What was learned. Its settings have the rate, how it was chosen (`chosen_on`), and what each was worth; a note
        says where none came below the log loss of the base's prompts.

    Raises:
        MedclipError: What `learn` raises, where it does so at every rate.
    """
    judge = Judge(shots, seed, most_folds=_FOLDS)
    if lr is not None or judge.how == "default":
        how = "default" if lr is None else "given"
        return _stated(learn(shots.train, RATES[method][0] if lr is None else lr), {"chosen_on": how})
    losses: dict[float, float] = {}
    best: tuple[float, float, Fitted] | None = None
    for rate in RATES[method]:
        try:
            learned = [learn(part.learn, rate) for part in judge.parts]
        except MedclipError as e:
            if e.reason is not Reason.NON_FINITE or (best is None and rate == RATES[method][-1]):
                raise
            continue
        logits = [fitted.logits(base, part.judge) for fitted, part in zip(learned, judge.parts, strict=True)]
        losses[rate] = loss = loss_of(np.concatenate(logits), judge.targets)
        if best is None or loss < best[0]:
            best = loss, rate, learned[0]
    assert best is not None
    loss, rate, fitted = best
    if judge.how == "folds":
        fitted = learn(shots.train, rate)
    zero_shot = judge.log_loss([shots.zero] * len(judge.parts))
    stated = {
        "chosen_on": judge.how,
        "log_loss": round(loss, 4),
        "log_loss_zero_shot": round(zero_shot, 4),
        "log_loss_by_rate": {f"{r:g}": round(v, 4) for r, v in losses.items()},
    }
    return _stated(fitted, stated, () if loss < zero_shot else (_no_better(judge, loss, zero_shot),))


def _no_better(judge: Judge, loss: float, zero_shot: float) -> str:
    held_back = "validation patients" if judge.how == "val" else "held-back shots"
    return (
        f"None of the rates tried came below the base's prompts on {len(judge.targets)} files of {held_back}: log loss "
        f"{loss:.3f}, zero-shot {zero_shot:.3f}. It may be worse than the base."
    )


def _stated(fitted: Fitted, settings: Mapping[str, Any], notes: Sequence[str] = ()) -> Fitted:
    return replace(fitted, settings={**fitted.settings, **settings}, notes=(*fitted.notes, *notes))
