"""Packs of one ancestor, trained for some steps, and the shards that they were trained on."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, NamedTuple

from medclip.training.loop import run_recipe
from tests.kits.training import make_shards, tiny_recipe


class Family(NamedTuple):
    """A pack and its children."""

    start: Path
    children: tuple[Path, ...]
    stranger: Path
    """A pack of the same architecture and words with other weights, which says that it began with a copy of its own."""
    shards: Path


def going_on(recipe: dict[str, Any], start: Path, name: str, **train: Any) -> dict[str, Any]:
    """Return a recipe that goes on from a pack."""
    parts = {k: copy.deepcopy(recipe[k]) for k in ("data", "train")}
    parts["train"] |= {"ema": 0, "max_steps": 2, "warmup_steps": 0} | train
    card = {"licence": f"licence-of-{name}", "intended_use": "Tests.", "modalities": ["xray"]}
    card["tasks"] = {
        "chest_xray_findings": {
            "classes": ["pneumonia"],
            "metrics": {"macro_auroc": {"value": 0.9}},
            "title": "Findings",
        }
    }
    return {"name": name, **parts, "model": {"start": str(start)}, "card": card}


def make_family(folder: Path, count: int = 3) -> Family:
    """Train them: some seconds."""
    shards = make_shards(folder / "shards", num_test=16)
    recipe = tiny_recipe(shards)
    quick = ["train.max_steps=1", "data.test_split=null", "train.ema=0"]

    def trained(plan: dict[str, Any], *changes: str) -> Path:
        pack = run_recipe(plan, [*changes], out=folder / plan["name"]).pack
        assert pack is not None
        return pack

    start = trained(recipe | {"name": "start"}, *quick)
    children = tuple(
        trained(going_on(recipe, start, f"child{k}", lr=0.003 * (k + 1)), f"seed={k}") for k in range(count)
    )
    tokenizer = f"text.tokenizer={folder / 'start' / 'tokenizer'}"
    plan = recipe | {"name": "other", "text": {"context_length": 24}, "seed": 9}
    other = trained(plan, *quick, tokenizer)
    return Family(start, children, trained(going_on(recipe, other, "stranger")), shards)
