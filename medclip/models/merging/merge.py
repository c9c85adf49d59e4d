"""Merge packs into one: which method, what it needs, and the pack that is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.output import claim_folder, in_use
from medclip.models.merging.ingredients import Ingredient, check_line, read_ingredient, refuse_different
from medclip.models.merging.merged_card import hash_lists, merged_card
from medclip.models.packs.manifest import FILE_NAME as MANIFEST
from medclip.models.packs.pack import read_preprocess, save_pack
from medclip.models.packs.words import has_text_tower

if TYPE_CHECKING:
    from torch import Tensor, nn

    from medclip.models.merging.soups import Tried

Method = Literal["soup", "greedy-soup", "opcm", "wise-ft"]
METHODS: Mapping[str, str] = {
    "soup": "a uniform soup",
    "greedy-soup": "a greedy soup",
    "opcm": "a merge one after the other (OPCM)",
    "wise-ft": "a point between the old and the new (WiSE-FT)",
}
"""Names, and what the card calls the result."""
NEED_BASE = frozenset({"opcm", "wise-ft"})
_KEPT = ("logit_scale", "logit_bias")
"""Parameters of the loss that OPCM leaves as the base has them."""
_STATISTICS = ("running_mean", "running_var")
_OPCM = "opcm"

Figure = Callable[[Ingredient, "nn.Module"], float]
"""Returns the figure of towers with the words and pixels of a pack; higher is better."""


@dataclass(frozen=True)
class Plan:
    """What is to be merged, checked before any weight is loaded."""

    method: Method
    ingredients: tuple[Ingredient, ...]
    base: Ingredient | None
    alpha: float
    min_gain: float
    notes: tuple[str, ...]

    @property
    def every(self) -> tuple[Ingredient, ...]:
        """The packs, and the base."""
        return self.ingredients if self.base is None else (*self.ingredients, self.base)


@dataclass(frozen=True, eq=False)
class MergedWeights:
    """What merging gave."""

    state: dict[str, Tensor]
    used: tuple[Ingredient, ...]
    """The packs whose training is in it."""
    facts: Mapping[str, Any]
    trace: tuple[Tried, ...] = ()
    figure: float | None = None
    """Of a greedy soup, on the data that chose it."""


def plan_merge(
    packs: Sequence[str | Path],
    *,
    method: str = "soup",
    base: str | Path | None = None,
    alpha: float | None = None,
    min_gain: float = 0.0,
) -> Plan:
    """Read packs and refuse what cannot be merged.

    Args:
        packs: Names or folders, for OPCM in the order in which they came; the first may be what an earlier OPCM made.
        method: One of METHODS.
        base: The pack that all of them began with; needed for opcm and wise-ft.
        alpha: Of opcm the share of singular values that is kept free, of wise-ft the new pack's share; 0.5 where None.
        min_gain: By how much a greedy soup must become better with a pack.

    Raises:
        MedclipError: WRONG_USE for what does not go together; PACK_INVALID naming the first tensor that differs; what
            reading a pack raises.
    """
    if method not in METHODS:
        hint = did_you_mean(method, METHODS, "Methods are")
        raise MedclipError(Reason.WRONG_USE, f"there is no method {method!r} of merging.", hint=hint)
    if (method in NEED_BASE) != (base is not None):
        what = "needs" if method in NEED_BASE else "takes no"
        raise MedclipError(
            Reason.WRONG_USE, f"{method} {what} --base, the pack that the others began with.",
            hint="Name it." if method in NEED_BASE else "To have it in the soup, name it among the packs.",
        )  # fmt: skip
    if (alpha is not None and method not in NEED_BASE) or (min_gain and method != "greedy-soup"):
        option = "--min-gain" if min_gain and method != "greedy-soup" else "--alpha"
        raise MedclipError(Reason.WRONG_USE, f"{option} does nothing with {method}.", hint="Leave it out.")
    fewest = 1 if method in NEED_BASE else 2
    if len(packs) < fewest or (method == "wise-ft" and len(packs) > 1):
        number = "one pack beside --base" if method == "wise-ft" else f"at least {fewest}"
        raise MedclipError(Reason.WRONG_USE, f"{method} takes {number}; {len(packs)} given.", hint="Name the packs.")
    share = 0.5 if alpha is None else alpha
    if not 0 <= share <= 1 or (method == "opcm" and share == 1):
        raise MedclipError(Reason.WRONG_USE, f"alpha is {share:g}; it is from 0 to 1, for opcm below 1.")
    ingredients = tuple(read_ingredient(pack) for pack in packs)
    twice = [one.name for i, one in enumerate(ingredients) if one.weights in {x.weights for x in ingredients[:i]}]
    if twice:
        raise MedclipError(Reason.WRONG_USE, f"{twice[0]} is given twice: its weights are those of another pack.")
    of_base = None if base is None else read_ingredient(base)
    refuse_different(ingredients if of_base is None else (of_base, *ingredients))
    notes = check_line(ingredients, of_base)
    plan = Plan(method, ingredients, of_base, share, min_gain, notes)  # type: ignore[arg-type]
    if method == "opcm":
        _before(plan)
    return plan


def merge_weights(plan: Plan, figure: Figure | None = None) -> MergedWeights:
    """Merge the weights of a plan.

    Args:
        plan: From `plan_merge`.
        figure: Measures a candidate of a greedy soup on held-out data.

    Raises:
        MedclipError: WRONG_USE for a greedy soup without figures.
    """
    from medclip.models.merging.soups import greedy_soup, uniform_soup, wise_ft

    first, method = plan.ingredients[0], plan.method
    facts: dict[str, Any] = {"method": method}
    if method == "soup":
        state = uniform_soup([one.state for one in plan.ingredients])
        return MergedWeights(state, plan.ingredients, facts)
    if method == "greedy-soup":
        if figure is None:
            raise MedclipError(
                Reason.WRONG_USE, "a greedy soup is chosen on held-out data.", hint="Name shards with --shards."
            )
        by_name = {str(i): one for i, one in enumerate(plan.ingredients)}
        result = greedy_soup(
            [(key, one.state) for key, one in by_name.items()],
            lambda state: figure(first, towers_of(first, state)), min_gain=plan.min_gain, midpoints=True,
        )  # fmt: skip
        trace = tuple(replace(tried, name=by_name[tried.name].name) for tried in result.trace)
        facts |= {"min_gain": plan.min_gain, "figure": result.figure, "tried": [asdict(tried) for tried in trace]}
        used = tuple(by_name[key] for key in result.ingredients)
        return MergedWeights(result.state, used, facts, trace, result.figure)
    assert plan.base is not None
    facts |= {"alpha": plan.alpha, "base": plan.base.reference()}
    if method == "wise-ft":
        state = wise_ft(plan.base.state(), first.state(), plan.alpha)
        return MergedWeights(state, (plan.base, first), facts)
    return _opcm(plan, facts)


def _opcm(plan: Plan, facts: dict[str, Any]) -> MergedWeights:
    from medclip.models.merging.opcm import OpcmState, linear_weights, opcm_merge

    assert plan.base is not None
    start = plan.base.state()
    own = {name: start[name] for name in _KEPT if name in start}
    before = _before(plan)
    packs = plan.ingredients if before is None else plan.ingredients[1:]
    state = None
    if before is not None:
        state = OpcmState(plan.ingredients[0].state(), float(before["lam"]), tuple(before["norms"]))
    merged, state = opcm_merge(
        start, (one.state() | own for one in packs), plan.alpha,
        linear_keys=linear_weights(towers_of(plan.base, start)), state=state,
        averaged=[name for name in start if name.endswith(_STATISTICS)],
    )  # fmt: skip
    facts[_OPCM] = {"lam": state.lam, "norms": list(state.norms)}
    return MergedWeights(merged, plan.ingredients, facts)


def _before(plan: Plan) -> Mapping[str, Any] | None:
    """Return what an earlier merge left on the first pack's card to go on from; None where it is no merge.

    Raises:
        MedclipError: WRONG_USE where that merge had another base or alpha, or where a merge stands in another place.
    """
    facts_of = [one.card.created_from for one in plan.ingredients]
    for one, facts in zip(plan.ingredients[1:], facts_of[1:], strict=True):
        if _OPCM in facts:
            raise MedclipError(
                Reason.WRONG_USE, f"{one.name} is a merge itself: it can go on only as the first pack.", where=one.path,
                hint="Name it first.",
            )  # fmt: skip
    facts, base = facts_of[0], plan.base
    if _OPCM not in facts or base is None:
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
    return facts[_OPCM]


def towers_of(one: Ingredient, state: Mapping[str, Tensor]) -> nn.Module:
    """Build the towers of a pack with other weights; float32."""
    from medclip.models.towers.build import build_clip

    clip = build_clip(one.model_cfg, one.path)
    clip.load_state_dict(dict(state), strict=True)
    return clip


def write_merged(plan: Plan, merged: MergedWeights, out: Path, *, name: str | None, version: str = "1") -> Path:
    """Write the pack.

    Weights are stored as those of the packs are, but those of OPCM in float32: the next merge goes on from them.

    Raises:
        MedclipError: OUTPUT_IN_USE, DISK_FULL, PERMISSION_DENIED.
    """
    first = plan.ingredients[0]
    config = first.model_cfg
    adapters = {way: digest for one in merged.used for way, digest in read_preprocess(one.path).adapters.items()}
    line = plan.base.ancestry if plan.base is not None else _common(merged.used)
    notes = [*plan.notes, *_statistics_note(merged.used)]
    under = () if plan.base is None or plan.base in merged.used else (plan.base,)
    parents = [one.path for one in (*merged.used, *under)]
    card = merged_card(
        merged.used, name=name or out.name, version=version, how=METHODS[plan.method], facts=merged.facts,
        line=line, notes=notes, under=under,
    )  # fmt: skip
    return save_pack(
        out,
        towers_of(first, merged.state),
        first.path if has_text_tower(config) else None,
        replace(read_preprocess(first.path), adapters=adapters),
        card,
        config=config,
        base=first.path,
        extra_files=hash_lists((*merged.used, *under)),
        half=plan.method != "opcm" and _is_half(first),
        parents=parents,
    )


def _common(used: Sequence[Ingredient]) -> list[str]:
    """Return what all packs go back to, the oldest first."""
    common = frozenset.intersection(*(one.line for one in used))
    return [weights for weights in used[0].ancestry if weights in common]


def check_place(out: Path, packs: Sequence[Path], overwrite: bool) -> None:
    """Refuse a folder that no merged pack can go to.

    Args:
        out: The folder.
        packs: Those that are read.
        overwrite: Whether another pack may be replaced.

    Raises:
        MedclipError: WRONG_USE for a pack's own folder; OUTPUT_IN_USE.
    """
    inputs = {f"pack {number} of those that are merged": path for number, path in enumerate(packs, start=1)}
    is_pack = claim_folder(out, "model pack", marks=(MANIFEST,), inputs=inputs, in_one_step=True)
    if is_pack and not overwrite:
        raise in_use(
            out, "this folder holds a model pack already", "Name another folder, or replace it with --overwrite."
        )


def _is_half(one: Ingredient) -> bool:
    """Whether a pack stores its matrices as fp16."""
    import torch

    from medclip.models.packs.manifest import WEIGHTS_NAME
    from medclip.models.towers.weights.state_dict import read_weights

    return any(value.dtype == torch.float16 for value in read_weights(one.path / WEIGHTS_NAME).values())


def _statistics_note(used: Sequence[Ingredient]) -> tuple[str, ...]:
    """Write that running statistics were averaged, where they differ; empty where all packs have the same."""
    first = {name: value for name, value in used[0].state().items() if name.endswith(_STATISTICS)}
    if all(state[name].equal(value) for state in (one.state() for one in used[1:]) for name, value in first.items()):
        return ()
    return ("The packs differ in the running statistics of batch normalisation, which were averaged and not estimated "
            "anew: figures may be lower for it.",)  # fmt: skip
