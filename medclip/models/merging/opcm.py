"""OPCM: models that come one after the other are merged as they come, without data and without the earlier ones.

What a new model learned (its weights less those that all began with) is projected, in each linear layer, away from what
the merge has learned so far, added, and the sum brought to the mean length of what the single models learned.

Where the published code has faults, this departs from it as the fault allows: parameters that a module with children
owns are merged (`unmerged` leaves them as that code does), fused query, key and value matrices are three matrices,
singular directions without any content are not projected away, for which directions they are is chance, and running
statistics of batch normalisation are averaged (`averaged`): a sum of what several models learned may take a variance
below 0, where a tower's features are no numbers any more.

Reference: Tang et al., Merging models on the fly without retraining, 2025 (arXiv 2501.09522).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from medclip.errors import MedclipError, Reason
from medclip.models.merging.ingredients import (
    STATISTICS,
    Figure,
    MergedWeights,
    Plan,
    refuse_other_tensors,
    towers_of,
)

StateDict = Mapping[str, Tensor]
ALPHA = 0.5
"""Share of the singular values whose block is kept free; 0.3 to 0.7 in the published sweep."""
_NOTHING = 1e-12
"""Frobenius norm below which a layer has learned nothing so far."""
_LEAST_SHARE = 1e-6
"""Of the largest singular value: smaller ones have directions that the LAPACK at hand chose."""
_FUSED = 3
"""Query, key and value of a fused matrix."""
_KEPT = ("logit_scale", "logit_bias")
"""Parameters of the loss that stay as the base has them."""
_FACTS = "opcm"
"""What the card keeps for the next merge."""


@dataclass(frozen=True, eq=False)
class OpcmState:
    """All that merging the next model needs."""

    merged: dict[str, Tensor]
    """M_t, in the dtypes of the pretrained weights."""
    lam: float
    """lambda_t: what the merge's task vector is multiplied with to be the plain sum again."""
    norms: tuple[float, ...]
    """L2 norms of the task vectors so far, one for each model."""


def merge_in_turn(plan: Plan, figure: Figure | None) -> MergedWeights:
    """Merge packs in their order, or go on with the merge that the first one is."""
    assert plan.base is not None
    start, before = plan.base.state(), check_turn(plan)
    kept = {name: start[name] for name in _KEPT if name in start}
    packs, state = plan.ingredients, None
    if before is not None:
        packs, state = packs[1:], OpcmState(packs[0].state(), float(before["lam"]), tuple(before["norms"]))
    merged, state = opcm_merge(
        start,
        (one.state() | kept for one in packs),
        plan.alpha,
        linear_keys=linear_weights(towers_of(plan.base, start)),
        state=state,
        averaged=[name for name in start if name.endswith(STATISTICS)],
    )
    return MergedWeights(merged, plan.ingredients, {_FACTS: {"lam": state.lam, "norms": list(state.norms)}})


def check_turn(plan: Plan) -> Mapping[str, Any] | None:
    """Return what an earlier merge left on the first pack's card to go on from; None where it is no merge.

    Raises:
        MedclipError: WRONG_USE for an alpha outside, where that merge had another base or alpha, or where a merge
            stands in another place.
    """
    _check_alpha(plan.alpha)
    facts_of = [one.card.created_from for one in plan.ingredients]
    for one, facts in zip(plan.ingredients[1:], facts_of[1:], strict=True):
        if _FACTS in facts:
            raise MedclipError(
                Reason.WRONG_USE,
                f"{one.name} is a merge itself: it can go on only as the first pack.",
                where=one.path,
                hint="Name it first.",
            )
    facts, base = facts_of[0], plan.base
    if _FACTS not in facts or base is None:
        return None
    if facts["base"]["weights"] != base.weights or facts["alpha"] != plan.alpha:
        raise MedclipError(
            Reason.WRONG_USE,
            f"{plan.ingredients[0].name} was merged with the base {facts['base']['name']} and alpha "
            f"{facts['alpha']:g}; going on with others would mix two merges.",
            where=plan.ingredients[0].path,
            hint="Name the same --base and --alpha.",
        )
    if len(plan.ingredients) == 1:
        raise MedclipError(Reason.WRONG_USE, f"there is nothing to merge {plan.ingredients[0].name} with.")
    return facts[_FACTS]


def _check_alpha(alpha: float) -> None:
    if not 0 <= alpha < 1:
        raise MedclipError(
            Reason.WRONG_USE, f"alpha is {alpha:g}; it is at least 0 and below 1 (at 1 the projection is the weakest)."
        )


def opcm_merge(
    pretrained: StateDict,
    experts: Iterable[StateDict],
    alpha: float = ALPHA,
    *,
    linear_keys: Callable[[str], bool] | Collection[str],
    state: OpcmState | None = None,
    unmerged: Collection[str] = (),
    averaged: Collection[str] = (),
) -> tuple[dict[str, Tensor], OpcmState]:
    """Merge models that began with the same weights, in their order.

    It computes in float64 and rounds to the dtypes of the pretrained weights after each model, so that merging four in
    one call and two and two in two calls give the same bits.

    Args:
        pretrained: theta_0.
        experts: The models; one at a time is looked at.
        alpha: The leading directions of the merge that hold this share of its singular values are kept free of the new
            model; 0 <= alpha < 1.
        linear_keys: Names of the weights of linear layers, [out, in]; a fused query, key and value matrix
            [3 D, D] counts as three. All others are added as they are.
        state: State of the models merged before; None begins with the first one.
        unmerged: Names of which the update is left out, as the published code does with parameters that a module with
            children owns; for comparisons with it.
        averaged: Names of which the merge has the mean over the models, and which are no part of a norm: what was
            measured, such as running statistics, and not learned.

    Returns:
        The merged weights, and what merging goes on from.

    Raises:
        MedclipError: WRONG_USE for an alpha outside, or nothing to merge; PACK_INVALID naming the first tensor that
            differs in name or shape.

    Example:
        >>> zero = {"w": torch.zeros(2, 2, dtype=torch.float64)}
        >>> tasks = [{"w": torch.tensor(rows, dtype=torch.float64)} for rows in ([[3, 0], [0, 1]], [[2, 4], [6, 5]])]
        >>> merged, state = opcm_merge(zero, tasks, linear_keys={"w"})
        >>> round(state.lam, 6), [[round(x, 4) for x in row] for row in merged["w"].tolist()]
        (1.294825, [[2.3169, 3.0892], [4.6338, 0.7723]])
    """
    _check_alpha(alpha)
    is_linear = linear_keys if callable(linear_keys) else linear_keys.__contains__
    for number, expert in enumerate(experts, start=1 if state is None else len(state.norms) + 1):
        refuse_other_tensors(pretrained, expert, "the pretrained model", f"model {number}")
        state = _merge_one(pretrained, expert, alpha, is_linear, state, unmerged, averaged)
    if state is None:
        raise MedclipError(Reason.WRONG_USE, "there is no model to merge.")
    return dict(state.merged), state


def linear_weights(model: nn.Module) -> frozenset[str]:
    """Name the weights of a model's linear layers: those of `nn.Linear`, and fused ones of attention."""
    names = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    fused = {
        f"{name}.in_proj_weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None
    }
    return frozenset((names | fused) & set(model.state_dict()))


def _merge_one(
    pretrained: StateDict,
    expert: StateDict,
    alpha: float,
    is_linear: Callable[[str], bool],
    state: OpcmState | None,
    unmerged: Collection[str],
    averaged: Collection[str],
) -> OpcmState:
    learned = {n: v.double() for n, v in pretrained.items() if v.is_floating_point() and n not in averaged}
    updates = {n: expert[n].double() - v for n, v in learned.items()}
    norm = _norm(updates)
    if state is None:
        kept = {n: v.to(pretrained[n].dtype).clone() for n, v in expert.items()}
        return OpcmState(kept, 1.0, (norm,))
    norms = (*state.norms, norm)
    mean = sum(norms) / len(norms)
    total: dict[str, Tensor] = {}
    for name, update in updates.items():
        before = state.merged[name].double() - learned[name]
        if name in unmerged:  # the published code does not undo their scaling either
            total[name] = before
            continue
        if is_linear(name) and update.ndim == 2:
            update = _projected(before, update, alpha)
        total[name] = state.lam * before + update
    length = _norm(total)
    scale = mean / length if length else 0.0
    merged = dict(state.merged)
    merged |= {name: (learned[name] + value * scale).to(pretrained[name].dtype) for name, value in total.items()}
    for name in averaged:
        so_far = state.merged[name].double()
        merged[name] = (so_far + (expert[name].double() - so_far) / len(norms)).to(pretrained[name].dtype)
    return OpcmState(merged, length / mean if mean else 1.0, norms)


def _projected(before: Tensor, update: Tensor, alpha: float) -> Tensor:
    """Project what a layer's new update shares with the merge out of it; fused matrices block by block."""
    out, inside = update.shape
    if out == _FUSED * inside:
        blocks = zip(before.chunk(_FUSED), update.chunk(_FUSED), strict=True)
        return torch.cat([_projected(old, new, alpha) for old, new in blocks])
    if float(before.norm()) < _NOTHING:
        return update
    u, sigma, vh = torch.linalg.svd(before, full_matrices=True)
    inner = u.T @ update @ vh.T
    cut = _cut(sigma, alpha)
    content = torch.arange(len(sigma))[sigma > _LEAST_SHARE * sigma[0]]
    inner[content, content] = 0
    inner[:cut, :cut] = 0
    return u @ inner @ vh


def _cut(sigma: Tensor, alpha: float) -> int:
    """Return the first place at which the share of the singular values exceeds alpha, 0-based.

    Example:
        >>> [_cut(torch.tensor([4.0, 2.0, 1.0]), alpha) for alpha in (0.5, 0.6, 0.9)]
        [0, 1, 2]
    """
    shares = sigma.cumsum(0) / sigma.sum()
    return int((shares > alpha).to(torch.int8).argmax())


def _norm(task: Mapping[str, Tensor]) -> float:
    return float(torch.stack([value.square().sum() for value in task.values()]).sum().sqrt()) if task else 0.0
