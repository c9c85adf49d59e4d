"""RandAugment is drawn from a given generator, and every change gives timm's own pixels."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from timm.data.auto_augment import LEVEL_TO_ARG, NAME_TO_OP, rand_augment_choices

from medclip.training.batches.augment import _VALUES, Op, apply_change, apply_op, draw_change, draw_ops
from medclip.training.recipe.augment import Augment, RandAugment

OF_TIMM = dict(zip(_VALUES, rand_augment_choices("rand"), strict=True))


@pytest.mark.parametrize("name", _VALUES)
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("magnitude", [0.0, 5.7, 6.4, 9.9])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_change_has_the_value_and_the_pixels_of_timm(
    name: str, sign: int, magnitude: float, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.9 if sign < 0 else 0.1)
    level = LEVEL_TO_ARG[OF_TIMM[name]]
    expected = () if level is None else level(magnitude, {})
    value = _VALUES[name](magnitude / 10, sign)
    assert expected == (() if level is None else (value,))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (31, 40, 3), dtype=np.uint8)).convert(mode)
    options: dict[str, Any] = {"fillcolor": 0 if mode == "L" else (0, 0, 0), "resample": Image.Resampling.BICUBIC}
    reference = NAME_TO_OP[OF_TIMM[name]](image, *expected, **options)
    assert np.array_equal(np.asarray(apply_op(image, Op(name, value))), np.asarray(reference))


def test_two_changes_are_drawn_and_half_of_them_made() -> None:
    drawn = [draw_ops(RandAugment(), np.random.default_rng(seed)) for seed in range(4000)]
    assert np.mean([len(ops) for ops in drawn]) == pytest.approx(1, abs=0.05)
    counts = [sum(op.name == name for ops in drawn for op in ops) for name in _VALUES]
    assert min(counts) > 4000 / 15 * 0.7
    turns = np.array([op.value for ops in drawn for op in ops if op.name == "rotate"])
    assert np.abs(turns).mean() == pytest.approx(18, abs=0.5)
    assert np.abs(turns).std() == pytest.approx(1.5, abs=0.4)
    assert (turns < 0).mean() == pytest.approx(0.5, abs=0.1)


@given(seed=st.integers(0, 1000), magnitude=st.floats(0, 10), layers=st.integers(1, 4))
def test_what_is_drawn_depends_on_the_generator_alone_and_takes_as_many_draws(
    seed: int, magnitude: float, layers: int
) -> None:
    settings = RandAugment(magnitude=magnitude, layers=layers)
    first, second = np.random.default_rng(seed), np.random.default_rng(seed)
    assert draw_ops(settings, first) == draw_ops(settings, second)
    never = np.random.default_rng(seed)
    assert draw_ops(settings.model_copy(update={"share": 0.0}), never) == ()
    assert never.random() == first.random()


def test_the_other_draws_of_an_image_stay_as_they_are() -> None:
    with_ops = Augment(rand_augment=RandAugment(share=1))
    drawn = draw_change(with_ops, np.random.default_rng(5), may_flip=True)
    assert len(drawn.ops) == 2
    assert replace(drawn, ops=()) == draw_change(Augment(), np.random.default_rng(5), may_flip=True)


def test_a_grey_image_gives_the_values_of_its_colour_form() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (50, 70, 1), dtype=np.uint8)
    for seed in range(40):
        change = draw_change(Augment(rand_augment=RandAugment(share=1)), np.random.default_rng(seed), may_flip=True)
        assert np.array_equal(apply_change(grey, change, 48), apply_change(np.repeat(grey, 3, axis=2), change, 48))


def test_stained_tissue_keeps_its_colours() -> None:
    seeds = range(500)
    names = {
        op.name for seed in seeds for op in draw_ops(RandAugment(share=1), np.random.default_rng(seed), may_tint=False)
    }
    assert "rotate" in names
    assert not names & {"colour", "invert", "solarize", "posterize"}


def test_timms_notation_is_understood() -> None:
    augment = Augment.model_validate({"rand_augment": "rand-m6-mstd0.5-inc1"})
    assert augment.rand_augment == RandAugment(magnitude=6, spread=0.5, layers=2, share=0.5)
    assert Augment.model_validate({"rand_augment": "rand-m9-n3-p0.2-inc1"}).rand_augment == RandAugment(
        magnitude=9, spread=0, layers=3, share=0.2
    )


@pytest.mark.parametrize("text", ["rand-m6-mstd0.5", "augmix-m3", "rand-m6-tweights-inc1", "rand-m11-inc1"])
def test_another_notation_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Augment.model_validate({"rand_augment": text})


@pytest.mark.parametrize("name", _VALUES)
def test_the_strongest_change_of_all_can_be_made(name: str) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (31, 40), dtype=np.uint8))
    assert apply_op(image, Op(name, _VALUES[name](1.0, -1))).size == image.size
