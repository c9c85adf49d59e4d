"""The verb `models merge`: packs of one ancestor become one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.api.groups.asking import NamedPack, Resamples
from medclip.api.groups.running import Device, Overwriting, Recipe, Told
from medclip.models.merging.merges import MERGES
from medclip.options import argument, option, options
from medclip.verbs import verb
from medclip.wording import list_of

if TYPE_CHECKING:
    from medclip.evaluation.merged_pack import MergedPack


@options
class MergePacksOptions(Told, Recipe, NamedPack, Resamples, Overwriting, Device):
    """What `models merge` is asked."""

    packs: Sequence[str | Path] = argument(
        "Name or folder of a pack, in their order. For opcm that in which they came; the first may be what opcm made "
        "before.",
        form="PACK...",
        kind=str,
        place=True,
    )
    out: str | Path = option("Folder to write; one that holds something else is refused.", place=True)
    method: str = option(
        f"How they are merged: {list_of(list(MERGES), 'or')}. "
        f"{'; '.join(f'{name} {merge.does}' for name, merge in MERGES.items())}.",
        default="soup",
        form="NAME",
        often=True,
    )
    base: str | Path | None = option(
        f"Pack that the others began with, for {list_of([name for name, one in MERGES.items() if one.needs_base])}.",
        default=None,
        form="PACK",
        kind=str,
        often=True,
        place=True,
    )
    alpha: float | None = option(
        f"Share: {', '.join(f'of {name} {one.alpha}' for name, one in MERGES.items() if one.alpha)}. Default: 0.5.",
        default=None,
        least=0,
        most=1,
    )
    shards: str | Path | Sequence[str | Path] = option(
        "Folder of `medclip shards build` to measure with. A greedy or learned soup is chosen on their --val-split.",
        default=(),
        form="DIR",
        often=True,
        place=True,
    )
    val_split: str = option(
        "Split that a greedy soup is chosen on, by the mean area over tasks, within sources where there are several, "
        "or that a learned one learns from.",
        default="val",
        form="NAME",
    )
    test_split: str | None = option(
        "Split that the merged pack is measured on. Shards may lack one of the name test, and no other. In Python None "
        "measures nothing.",
        default="test",
        form="NAME",
    )
    min_gain: float = option(
        "Least gain of that mean area for a pack to come into a greedy soup.", default=0.0, least=0
    )


@verb(MergePacksOptions)
def merge_packs(options: MergePacksOptions) -> MergedPack:
    """Merge packs that began with the same weights: an average, a learned mix, or one after the other.

    Figures of the packs are not carried over: with --shards the merged pack is measured on their test split, without
    files and patients that any of the packs was trained on or that a soup was chosen with.

    Returns:
        The pack: `.path`, `.packs`, `.held_out`.

    Raises:
        MedclipError: WRONG_USE; PACK_INVALID naming the first tensor that differs; OUTPUT_IN_USE; NOTHING_TO_DO where
            held-out data has no task that can be measured; what reading packs and shards raises.

    Reference: Wortsman et al., Model soups, 2022; Tang et al., Merging models on the fly without retraining, 2025.

    Example:
        >>> import medclip
        >>> medclip.models.merge(["packs/a", "packs/b"], out="packs/soup").packs  # doctest: +SKIP
        ('a 1', 'b 1')
    """
    from medclip.evaluation.merged_pack import HeldOut, MergedPack
    from medclip.models.merging.merge import check_place, merge_weights, plan_merge, write_merged
    from medclip.progress import Silent

    shards = [options.shards] if isinstance(options.shards, str | Path) else list(options.shards)
    packs = [options.packs] if isinstance(options.packs, str | Path) else list(options.packs)
    plan = plan_merge(packs, method=options.method, base=options.base, alpha=options.alpha, min_gain=options.min_gain)
    out = Path(options.out)
    check_place(out, [one.path for one in plan.every], options.overwrite)
    held = HeldOut(
        plan,
        [Path(place) for place in shards],
        options.val_split,
        options.test_split,
        options.device,
        options.progress or Silent(),
    )
    merged = merge_weights(plan, held.figure if shards else None, held.lessons if shards else None)
    path = write_merged(plan, merged, out, name=options.name)
    notes = (*plan.notes, *held.notes(merged.trace))
    figures = held.measure(path, options.num_resamples) if shards else None
    used = tuple(one.name for one in merged.used)
    name = options.name or out.name
    return MergedPack(path, name, options.method, used, merged.trace, merged.figure, figures, notes, merged.shares)
