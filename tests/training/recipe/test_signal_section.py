"""`model.signal` of a recipe: what it stands for where nothing is said, and what does not go together."""

from __future__ import annotations

from typing import Any

import pytest

from medclip.errors import MedclipError
from medclip.models.inputs.signal_input import SignalInput
from medclip.training.recipe.schema import load_recipe


def _recipe(signal: dict[str, Any], objective: Any = "masked", **model: Any) -> dict[str, Any]:
    return {"name": "r", "data": {"shards": "s"}, "model": {"signal": signal, **model}, "objective": objective}


def test_a_section_without_keys_is_the_small_transformer_of_all_leads() -> None:
    recipe = load_recipe(_recipe({}))
    signal = recipe.model.signal
    assert signal is not None
    assert signal.config == {"tower": "joint_patch", "size": "small", "patch": 50, "samples": 5000}
    assert signal.taken == SignalInput()
    assert recipe.model.image_weights is None
    masked = recipe.objective.masked
    assert masked is not None
    assert (masked.decoder, masked.ratio, masked.normalise) == ("dec128d2", 0.75, False)
    assert recipe.augment.flip == 0


@pytest.mark.parametrize(
    ("signal", "config"),
    [
        ({"tower": "lead_patch"}, {"patch": 125, "samples": 5000}),
        ({"tower": "lead_patch", "sampling_hz": 100}, {"patch": 25, "samples": 1000}),
        ({"sampling_hz": 100, "seconds": 5, "patch": 20}, {"patch": 20, "samples": 500}),
    ],
)
def test_patches_follow_the_rate(signal: dict[str, Any], config: dict[str, Any]) -> None:
    section = load_recipe(_recipe(signal)).model.signal
    assert section is not None
    assert {key: section.config[key] for key in config} == config


def test_a_resnet_from_random_weights_learns_its_statistics() -> None:
    words = {"contrastive": 1.0}
    assert not load_recipe(_recipe({"tower": "resnet1d"}, words)).model.freeze_bn
    assert load_recipe(_recipe({"tower": "resnet1d"}, words, freeze_bn=True)).model.freeze_bn
    assert load_recipe(_recipe({}, words)).model.freeze_bn


@pytest.mark.parametrize(
    ("signal", "objective", "model", "message"),
    [
        ({"patch": 30}, "masked", {}, "no multiple of the patch of 30"),
        ({"tower": "resnet1d"}, "masked", {}, "tower is resnet1d"),
        ({"tower": "resnet1d", "patch": 5}, {"contrastive": 1}, {}, "patch does nothing"),
        ({"rate": 5}, "masked", {}, "rate"),
        ({"sampling_hz": 1}, "masked", {}, "10 to 5,000"),
        ({}, {"contrastive": 0, "masked": {"decoder": "linear"}}, {}, "dec128d2"),
        ({}, {"contrastive": 0, "masked": {"decoder": "dec128d2", "foreground": True}}, {}, "foreground"),
        ({}, "masked", {"start": "p"}, "signal does not go with start"),
        ({}, "masked", {"image_weights": "imagenet"}, "imagenet"),
        ({}, {"contrastive": 1}, {"image_tower": "test_vit"}, "image_tower"),
    ],
)
def test_what_does_not_go_together_is_refused(
    signal: dict[str, Any], objective: Any, model: dict[str, Any], message: str
) -> None:
    with pytest.raises(MedclipError, match=message):
        load_recipe(_recipe(signal, objective, **model))
