"""A way to merge packs is a row: what it needs is refused by the row, and its function lies where the row says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import medclip
from medclip.errors import MedclipError
from medclip.models.merging.ingredients import Figure, MergedWeights, Plan
from medclip.models.merging.merges import MERGES, Merge
from medclip.models.packs.card import read_card
from medclip.models.packs.manifest import WEIGHTS_NAME
from tests.kits.merging import make_family


def merge_by_largest(plan: Plan, figure: Figure | None) -> MergedWeights:
    """Of each weight the largest."""
    states = [one.state() for one in plan.ingredients]
    state = {name: torch.stack([one[name] for one in states]).amax(0) for name in states[0]}
    return MergedWeights(state, plan.ingredients, {"rule": "amax"})


def test_a_row_that_is_added_merges_packs_and_its_needs_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    family = make_family(tmp_path / "family")
    row = Merge("a largest of all", "takes the largest of each weight", f"{__name__}:merge_by_largest", in_float32=True)
    monkeypatch.setitem(MERGES, "largest", row)  # type: ignore[arg-type]
    path = medclip.models.merge(family.children[:2], out=tmp_path / "m", method="largest").path
    first, second, merged = (load_file(pack / WEIGHTS_NAME) for pack in (*family.children[:2], path))
    for name, value in merged.items():
        torch.testing.assert_close(value, torch.maximum(first[name], second[name]).to(value.dtype))
    card = read_card(path)
    assert card.summary == "A largest of all of child0 0 and child1 0."
    assert (card.created_from["method"], card.created_from["rule"]) == ("largest", "amax")
    assert "alpha" not in card.created_from
    for needs, named in (
        ({"base": family.start}, "largest takes no --base"),
        ({"alpha": 0.5}, "--alpha does nothing with largest"),
        ({"min_gain": 0.1}, "--min-gain does nothing with largest"),
    ):
        with pytest.raises(MedclipError, match=named):
            medclip.models.merge(family.children[:2], out=tmp_path / "n", method="largest", **needs)  # type: ignore[arg-type]
