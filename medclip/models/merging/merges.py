"""The ways to merge packs: one table of names, and what each of them needs. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Merge:
    """One row of the table."""

    title: str
    """What the card calls the result."""
    does: str
    """What it does with packs, for help: "averages all packs"."""
    target: str
    """module:function, of a `Plan` and a `Figure` (None without shards), to `MergedWeights` with facts of its own;
    where it `learns`, of a `Plan` and `Lessons`."""
    needs_base: bool = False
    """It needs the pack that the others began with; other ways take none."""
    fewest: int = 2
    """Packs beside the base."""
    takes_one: bool = False
    """It takes one pack beside the base, and no more."""
    alpha: str = ""
    """What --alpha is a share of, for help; "" where it takes none."""
    takes_min_gain: bool = False
    needs_shards: bool = False
    """It is chosen on held-out data."""
    learns: bool = False
    """It learns from held-out data by gradient."""
    in_float32: bool = False
    """Its weights are stored so whatever those of the packs are: the next merge goes on from them."""
    check: str = ""
    """module:function that refuses a `Plan` which only this way cannot merge; "" where there is nothing to check."""


MERGES: Mapping[str, Merge] = {
    "soup": Merge("a uniform soup", "averages all packs", "medclip.models.merging.soups:merge_uniformly"),
    "greedy-soup": Merge(
        "a greedy soup",
        "adds, the best first, those that make held-out figures better",
        "medclip.models.merging.soups:merge_greedily",
        takes_min_gain=True,
        needs_shards=True,
    ),
    "learned-soup": Merge(
        "a learned soup",
        "learns on held-out data how much of each pack is in each tensor",
        "medclip.models.merging.learned_soup:merge_learned",
        needs_shards=True,
        learns=True,
    ),
    "opcm": Merge(
        "a merge one after the other (OPCM)",
        "folds packs that come later into one merge",
        "medclip.models.merging.opcm:merge_in_turn",
        needs_base=True,
        fewest=1,
        alpha="that of singular values kept free of new packs",
        in_float32=True,
        check="medclip.models.merging.opcm:check_turn",
    ),
    "wise-ft": Merge(
        "a point between the old and the new (WiSE-FT)",
        "goes from --base towards one pack",
        "medclip.models.merging.soups:merge_with_base",
        needs_base=True,
        fewest=1,
        takes_one=True,
        alpha="the new pack's",
    ),
}
"""Names, as --method has them."""
