"""Divide a budget of bits among layers by their relevance (LRP-QViT, arXiv 2401.11243): an integer programme.

The paper has no published code. Its linear objective, as recollected, gives all to few layers; the noise objective is
ours and the default: a bit less makes four times the noise, wherever it is taken from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from medclip.errors import MedclipError, Reason

Objective = Literal["noise", "linear"]


def allocate_bits(
    relevance: Sequence[float],
    sizes: Sequence[float],
    *,
    choices: Sequence[int] = (4, 5, 6, 7, 8),
    mean_bits: float,
    objective: Objective = "noise",
    fixed: Mapping[int, int] | None = None,
) -> tuple[int, ...]:
    """Choose the bits of each layer.

    Args:
        relevance: Ω of each layer, 0 or more.
        sizes: Weights of each layer.
        choices: Bits that a layer may have.
        mean_bits: Most bits for a weight, on average over all weights.
        objective: Name of the objective: "noise" minimises Σ Ω·4^(-bits); "linear" maximises Σ Ω·bits.
        fixed: Place of a layer to its bits, such as {0: 8, 12: 8} for the first and the last.

    Returns:
        Bits of each layer, in order. Of several best divisions one that uses the fewest bits.

    Raises:
        MedclipError: WRONG_USE where no division keeps the budget.

    Example:
        >>> allocate_bits([0.6, 0.3, 0.1], [1, 1, 1], choices=(4, 6, 8), mean_bits=6, objective="linear")
        (8, 6, 4)
    """
    omega, weights, bits = np.asarray(relevance, float), np.asarray(sizes, float), np.asarray(choices, float)
    num_layers, num_choices = len(omega), len(bits)
    gain = omega[:, None] * (4.0**-bits if objective == "noise" else -bits)
    cost = weights[:, None] * bits / weights.sum()
    tie = 1e-9 * max(1e-12, float(np.abs(gain).max()))
    one_each = np.kron(np.eye(num_layers), np.ones(num_choices))
    allowed: Any = np.ones((num_layers, num_choices))
    for layer, own in (fixed or {}).items():
        allowed[layer] = bits == own
    solution = milp(
        (gain / np.abs(gain).max() + tie * cost).ravel() if np.abs(gain).max() > 0 else cost.ravel(),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(np.eye(gain.size), 0, allowed.ravel()),
            LinearConstraint(cost.ravel()[None], -np.inf, mean_bits + 1e-9),
        ],
        integrality=np.ones(gain.size),
        bounds=Bounds(0, 1),
    )
    if solution.x is None:
        raise MedclipError(
            Reason.WRONG_USE,
            f"no layer can have so few bits that the mean is {mean_bits:g}: they may have {list(choices)}.",
            hint="Allow more bits on average, or fewer for a layer.",
        )
    chosen = solution.x.reshape(gain.shape).argmax(axis=1)
    return tuple(int(bits[place]) for place in chosen)
