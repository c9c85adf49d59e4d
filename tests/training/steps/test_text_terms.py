"""Losses that read texts beside captions, through the one trainer: each learns what its texts say, in chunks too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import medclip
from medclip.errors import MedclipError, Reason
from tests.kits.training import make_shards


def texts_of(number: int) -> dict[str, str]:
    """Of four images one has nothing beside its labels."""
    if number % 4 == 3:
        return {}
    shown, other = ("bright disc", "dark film") if number % 2 else ("dark film", "bright disc")
    return {"negatives": f"a {other}\nno {shown}"}


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("better"), columns=texts_of)


@pytest.fixture
def plan(recipe: dict[str, Any], spoken: Path) -> dict[str, Any]:
    """Six steps, images as they are."""
    recipe["data"] |= {"shards": str(spoken)}
    recipe["augment"] = {"flip": 0, "crop_scale": [1.0, 1.0], "rotate_deg": 0, "brightness": 0, "contrast": 0}
    return recipe


def losses(folder: Path) -> list[float]:
    events = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [event["loss"] for event in events if event["kind"] == "step"]


def first_losses(plan: dict[str, Any], out: Path, *changes: str) -> list[float]:
    """Losses of two steps."""
    medclip.pretrain(plan, overrides=["train.max_steps=2", *changes], out=out)
    return losses(out)


@pytest.mark.parametrize("form", ["pairwise", "row"])
def test_images_are_told_from_false_texts(plan: dict[str, Any], tmp_path: Path, form: str) -> None:
    plan["objective"] = {"losses": {"hard_negatives": {"form": form}}}
    plan["data"] |= {"num_negatives": 2}
    whole = first_losses(plan, tmp_path / "whole")
    assert first_losses(plan, tmp_path / "chunks", "train.micro_batch=4") == pytest.approx(whole, rel=1e-4)
    del plan["data"]["num_negatives"]
    plain = first_losses(plan | {"objective": {}}, tmp_path / "plain")
    assert whole[0] > plain[0] + 0.3


def test_samples_of_several_images_are_refused(plan: dict[str, Any], tmp_path: Path) -> None:
    plan["objective"] = {"losses": {"hard_negatives": {}}, "two_views": {}}
    with pytest.raises(
        MedclipError, match=r"losses\.hard_negatives compares .* does not go with .*two_views"
    ) as refused:
        medclip.pretrain(plan, out=tmp_path / "run")
    assert refused.value.reason is Reason.RECIPE_INVALID
