"""Averages of weights: uniform and greedy soups, and the line between an old model and a new one (WiSE-FT).

They work inside one basin only: the models began with the same weights and learned with rates that did not leave it.

Reference: Wortsman et al., Model soups, ICML 2022; Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from medclip.errors import MedclipError, Reason
from medclip.models.merging.ingredients import Figure, MergedWeights, Plan, Tried, refuse_other_tensors, towers_of

StateDict = Mapping[str, Tensor]
Load = Callable[[], StateDict]
Tie = Literal["strict", "geq"]


@dataclass(frozen=True, eq=False)
class GreedyResult:
    """A greedy soup."""

    state: dict[str, Tensor]
    ingredients: tuple[str, ...]
    """Names, in the order in which they came in; the best model first."""
    figure: float
    """Of the soup, on the data that chose it."""
    trace: tuple[Tried, ...]
    """All but the best model, in the order in which they were tried."""


def merge_uniformly(plan: Plan, figure: Figure | None) -> MergedWeights:
    """Make a uniform soup of packs."""
    return MergedWeights(uniform_soup([one.state for one in plan.ingredients]), plan.ingredients)


def merge_greedily(plan: Plan, figure: Figure | None) -> MergedWeights:
    """Make a greedy soup of packs."""
    assert figure is not None
    first, by_name = plan.ingredients[0], {str(i): one for i, one in enumerate(plan.ingredients)}
    result = greedy_soup(
        [(key, one.state) for key, one in by_name.items()],
        lambda state: figure(first, towers_of(first, state)),
        min_gain=plan.min_gain,
        midpoints=True,
    )
    trace = tuple(replace(tried, name=by_name[tried.name].name) for tried in result.trace)
    facts = {"figure": result.figure, "tried": [asdict(tried) for tried in trace]}
    used = tuple(by_name[key] for key in result.ingredients)
    return MergedWeights(result.state, used, facts, trace, result.figure)


def merge_with_base(plan: Plan, figure: Figure | None) -> MergedWeights:
    """Go from the base towards a pack."""
    assert plan.base is not None
    new = plan.ingredients[0]
    return MergedWeights(wise_ft(plan.base.state(), new.state(), plan.alpha), (plan.base, new))


def uniform_soup(states: Sequence[StateDict] | Sequence[Load]) -> dict[str, Tensor]:
    """Average weights: theta = (1/K) sum_k theta_k, added up one after the other.

    Args:
        states: K state dicts with the same names and shapes, or functions that load them: two are in memory at once.

    Returns:
        The average, each tensor in the dtype that the first model has it in; what is no floating-point number is the
        first model's. float16 and bfloat16 are averaged in float32.

    Raises:
        MedclipError: WRONG_USE without a model; PACK_INVALID naming the first tensor that differs in name or shape.

    Example:
        >>> w = [{"w": torch.tensor([value])} for value in (1.0, 4.0, 7.0)]
        >>> uniform_soup(w)["w"].item()
        4.0
    """
    if not states:
        raise MedclipError(Reason.WRONG_USE, "a soup needs at least one model.")
    form, total = _form(state := _load(states[0])), _wide(state)
    for number, source in enumerate(states[1:], start=1):
        state = _load(source)
        refuse_other_tensors(form, state, "model 1", f"model {number + 1}")
        total = _added(total, number, state)
    return _as_in(form, total)


def greedy_soup(
    models: Sequence[tuple[str, Load]],
    evaluate: Callable[[StateDict], float],
    tie: Tie = "strict",
    *,
    min_gain: float = 0.0,
    midpoints: bool = False,
) -> GreedyResult:
    """Add models to a soup, the best first, each only where it makes the soup better on held-out data.

    Every model has one chance and none is removed. Ties among single models are visited in the reverse of their order,
    as in the published code (a stable sort upwards, then reversed). At most three state dicts are in memory at once.

    Args:
        models: Names, and functions that load the state dicts.
        evaluate: Function that returns the figure of a state dict on data that is neither trained nor tested on; higher
            is better.
        tie: Rule for ties: "strict" accepts a soup that is better, as the published code does; "geq" one that is not
            worse.
        min_gain: Gain by which a soup must be better.
        midpoints: Whether, for models that are refused, what lies halfway between them and the best one is measured.

    Raises:
        MedclipError: WRONG_USE without a model; PACK_INVALID naming the first tensor that differs.
    """
    if not models:
        raise MedclipError(Reason.WRONG_USE, "a soup needs at least one model.")
    alone = [evaluate(load()) for _, load in models]
    order = sorted(range(len(models)), key=lambda k: alone[k])[::-1]
    name, load_best = models[order[0]]
    form, soup = _form(state := load_best()), _wide(state)
    figure, ingredients, trace = alone[order[0]], [name], []
    for k in order[1:]:
        name, load = models[k]
        state = load()
        refuse_other_tensors(form, state, ingredients[0], name)
        candidate: dict[str, Tensor] | None = _added(dict(soup), len(ingredients), state)
        value = evaluate(_as_in(form, candidate))
        accepted = value >= figure + min_gain if tie == "geq" else value > figure + min_gain
        midpoint = None
        if accepted:
            soup, figure = candidate, value
            ingredients.append(name)
        elif midpoints:
            candidate = None
            midpoint = evaluate(_as_in(form, _added(_wide(load_best()), 1, state)))
        trace.append(Tried(name, alone[k], value, accepted, midpoint))
    return GreedyResult(_as_in(form, soup), tuple(ingredients), figure, tuple(trace))


def wise_ft(
    theta0: StateDict,
    theta1: StateDict,
    alpha: float = 0.5,
    fisher: tuple[StateDict, StateDict] | None = None,
    floor: float = 1e-8,
) -> dict[str, Tensor]:
    """Interpolate between two models: (1 - alpha) theta0 + alpha theta1; the ends are the models, bit for bit.

    Args:
        theta0: The old model.
        theta1: The new one, which began with it.
        alpha: Share of the new one, 0 to 1; to be chosen on validation data.
        fisher: Fisher information of both: weights are then (1 - alpha) max(F0, floor) and alpha max(F1, floor),
            divided by their sum. A tensor that one of them lacks counts as ones.
        floor: Least Fisher information.

    Raises:
        MedclipError: WRONG_USE for an alpha outside; PACK_INVALID naming the first tensor that differs.
    """
    if not 0 <= alpha <= 1:
        raise MedclipError(Reason.WRONG_USE, f"alpha is {alpha:g}; it is the new model's share, from 0 to 1.")
    refuse_other_tensors(theta0, theta1, "the old model", "the new model")
    if alpha in (0, 1):
        return {name: value.clone() for name, value in (theta1 if alpha else theta0).items()}
    mixed = {}
    for name, old in _wide(theta0).items():
        new = theta1[name].to(old.dtype)
        if not old.is_floating_point():
            mixed[name] = old
        elif fisher is None:
            mixed[name] = (1 - alpha) * old + alpha * new
        else:
            weights = [f[name].to(old.dtype) if name in f else torch.ones_like(old) for f in fisher]
            c0, c1 = (1 - alpha) * weights[0].clamp_min(floor), alpha * weights[1].clamp_min(floor)
            mixed[name] = (c0 * old + c1 * new) / (c0 + c1)
    return _as_in(theta0, mixed)


def _load(source: StateDict | Load) -> StateDict:
    return source if isinstance(source, Mapping) else source()


def _form(state: StateDict) -> dict[str, Tensor]:
    """Return names, shapes and dtypes without the numbers."""
    return {name: torch.empty_like(value, device="meta") for name, value in state.items()}


def _wide(state: StateDict) -> dict[str, Tensor]:
    """Return weights in the dtype that is computed in: float64 stays, half precision becomes float32."""
    return {n: v.float() if v.dtype in (torch.float16, torch.bfloat16) else v for n, v in state.items()}


def _added(mean: dict[str, Tensor], number: int, state: StateDict) -> dict[str, Tensor]:
    """Turn the mean of `number` models into that with one more, tensor by tensor: mean * n/(n+1) + theta/(n+1)."""
    for name, value in mean.items():
        if value.is_floating_point():
            mean[name] = value * (number / (number + 1)) + state[name].to(value.dtype) / (number + 1)
    return mean


def _as_in(form: StateDict, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.to(form[name].dtype) for name, value in state.items()}
