"""Merge packs into one: which method, what it needs, and the pack that is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.output import claim_folder, in_use
from medclip.lazy import import_name
from medclip.models.merging.ingredients import (
    STATISTICS,
    Figure,
    Ingredient,
    MergedWeights,
    Plan,
    check_line,
    read_ingredient,
    refuse_different,
    towers_of,
)
from medclip.models.merging.merged_card import hash_lists, merged_card
from medclip.models.merging.merges import MERGES
from medclip.models.packs.manifest import FILE_NAME as MANIFEST
from medclip.models.packs.pack import read_preprocess, save_pack
from medclip.models.packs.words import has_text_tower


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
        method: Method, one of `MERGES`.
        base: The pack that all of them began with, for methods that need it.
        alpha: Share, of what the method has it of; 0.5 where None.
        min_gain: Gain by which a greedy soup must become better with a pack.

    Raises:
        MedclipError: WRONG_USE for what does not go together; PACK_INVALID naming the first tensor that differs; what
            reading a pack raises.
    """
    if method not in MERGES:
        hint = did_you_mean(method, MERGES, "Methods are")
        raise MedclipError(Reason.WRONG_USE, f"there is no method {method!r} of merging.", hint=hint)
    row = MERGES[method]
    if row.needs_base != (base is not None):
        raise MedclipError(
            Reason.WRONG_USE,
            f"{method} {'needs' if row.needs_base else 'takes no'} --base, the pack that the others began with.",
            hint="Name it." if row.needs_base else "To have it in the soup, name it among the packs.",
        )
    useless = {"--min-gain": min_gain and not row.takes_min_gain, "--alpha": alpha is not None and not row.alpha}
    for option in filter(useless.get, useless):
        raise MedclipError(Reason.WRONG_USE, f"{option} does nothing with {method}.", hint="Leave it out.")
    if len(packs) < row.fewest or (row.takes_one and len(packs) > 1):
        number = "one pack beside --base" if row.takes_one else f"at least {row.fewest}"
        raise MedclipError(Reason.WRONG_USE, f"{method} takes {number}; {len(packs)} given.", hint="Name the packs.")
    share = 0.5 if alpha is None else alpha
    if not 0 <= share <= 1:
        raise MedclipError(Reason.WRONG_USE, f"alpha is {share:g}; it is from 0 to 1.")
    ingredients = tuple(read_ingredient(pack) for pack in packs)
    twice = [one.name for i, one in enumerate(ingredients) if one.weights in {x.weights for x in ingredients[:i]}]
    if twice:
        raise MedclipError(Reason.WRONG_USE, f"{twice[0]} is given twice: its weights are those of another pack.")
    of_base = None if base is None else read_ingredient(base)
    refuse_different(ingredients if of_base is None else (of_base, *ingredients))
    notes = check_line(ingredients, of_base)
    plan = Plan(method, ingredients, of_base, share, min_gain, notes)
    if row.check:
        import_name(row.check)(plan)
    return plan


def merge_weights(plan: Plan, figure: Figure | None = None) -> MergedWeights:
    """Merge the weights of a plan.

    Args:
        plan: Plan from `plan_merge`.
        figure: Function that measures a candidate of a greedy soup on held-out data.

    Raises:
        MedclipError: WRONG_USE for what is chosen on held-out data, without figures.
    """
    row = MERGES[plan.method]
    if row.needs_shards and figure is None:
        raise MedclipError(
            Reason.WRONG_USE, f"{row.title} is chosen on held-out data.", hint="Name shards with --shards."
        )
    facts: dict[str, Any] = {"method": plan.method}
    facts |= {"min_gain": plan.min_gain} if row.takes_min_gain else {}
    facts |= {"alpha": plan.alpha} if row.alpha else {}
    facts |= {} if plan.base is None else {"base": plan.base.reference()}
    merged: MergedWeights = import_name(row.target)(plan, figure)
    return replace(merged, facts={**facts, **merged.facts})


def write_merged(plan: Plan, merged: MergedWeights, out: Path, *, name: str | None, version: str = "1") -> Path:
    """Write the pack.

    Weights are stored as those of the packs are, unless the method stores them in float32.

    Raises:
        MedclipError: OUTPUT_IN_USE, DISK_FULL, PERMISSION_DENIED.
    """
    row, first = MERGES[plan.method], plan.ingredients[0]
    config = first.model_cfg
    adapters = {way: digest for one in merged.used for way, digest in read_preprocess(one.path).adapters.items()}
    line = plan.base.ancestry if plan.base is not None else _common(merged.used)
    notes = [*plan.notes, *_statistics_note(merged.used)]
    under = () if plan.base is None or plan.base in merged.used else (plan.base,)
    parents = [one.path for one in (*merged.used, *under)]
    card = merged_card(
        merged.used,
        name=name or out.name,
        version=version,
        how=row.title,
        facts=merged.facts,
        line=line,
        notes=notes,
        under=under,
    )
    return save_pack(
        out,
        towers_of(first, merged.state),
        first.path if has_text_tower(config) else None,
        replace(read_preprocess(first.path), adapters=adapters),
        card,
        config=config,
        base=first.path,
        extra_files=hash_lists((*merged.used, *under)),
        half=not row.in_float32 and _is_half(first),
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
        packs: Folders of the packs that are read.
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
    from medclip.models.towers.state_dict import read_weights

    return any(value.dtype == torch.float16 for value in read_weights(one.path / WEIGHTS_NAME).values())


def _statistics_note(used: Sequence[Ingredient]) -> tuple[str, ...]:
    """Write that running statistics were averaged, where they differ; empty where all packs have the same."""
    first = {name: value for name, value in used[0].state().items() if name.endswith(STATISTICS)}
    if all(state[name].equal(value) for state in (one.state() for one in used[1:]) for name, value in first.items()):
        return ()
    return (
        "The packs differ in the running statistics of batch normalisation, which were averaged and not estimated "
        "anew: figures may be lower for it.",
    )
