from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.task_loss import targets_of
from medclip.adaptation.towers.train_loop import (
    FLOOR,
    Loop,
    Sentences,
    TrainImages,
    cosine_rate,
    frozen_front,
    learning_rates,
    train_towers,
)
from medclip.errors import MedclipError, Reason
from medclip.models.model import Model
from tests.kits.adapt_towers import Kind, model_of
from tests.kits.adaptation import made_up, words


@pytest.mark.golden
def test_rates_are_the_golden_ones(golden: Path) -> None:
    stored = np.load(golden / "clip_svd_lr_schedules.npz", allow_pickle=False)
    for name in stored.files:
        found = re.search(r"_T(?:otal)?_?T?(\d+)_lr([\d.e+-]+)$", name) or re.search(r"T(\d+)_lr([\d.e+-]+)$", name)
        assert found is not None, name
        period, lr, expected = int(found[1]), float(found[2]), stored[name]
        rates = [cosine_rate(step, lr, period) for step in range(len(expected))]
        np.testing.assert_allclose(rates, expected, rtol=1e-9, atol=1e-15)
        same = {"num_epochs": period, "compat": "upstream"} if period < len(expected) else {}
        np.testing.assert_allclose(learning_rates(len(expected), lr, **same), expected, rtol=1e-9, atol=1e-15)


def test_ours_falls_to_the_floor_and_upstreams_is_back_at_its_maximum_at_two_steps_an_epoch() -> None:
    ours, theirs = learning_rates(200, 7e-3), learning_rates(200, 7e-3, num_epochs=100, compat="upstream")
    assert ours == sorted(ours, reverse=True)
    assert ours[-1] < 2 * FLOOR
    assert theirs[100] == pytest.approx(FLOOR)
    assert theirs[-1] > 0.999 * 7e-3


@pytest.mark.parametrize("wrong", [{"compat": "upstream"}, {"compat": "paper", "num_epochs": 3}])
def test_another_word_or_no_epochs_are_refused(wrong: dict) -> None:
    with pytest.raises(MedclipError, match="upstream"):
        learning_rates(10, 1e-3, **wrong)


def trained(base: Model, examples: Examples, loop: Loop, seed: int = 0, learns: str = "", **more: Any) -> nn.Module:
    """A copy of the base in which parameters whose name holds `learns` were trained."""
    text = words(3, multilabel=examples.multilabel)
    clip = copy.deepcopy(base.clip)
    for name, p in clip.named_parameters():
        p.requires_grad_(learns in name and name != "logit_scale")
    goal = targets_of(examples.targets, base.device)
    images = TrainImages(clip, base, examples, loop, seed)
    train_towers(clip, base, text, images, goal, loop, method="it", seed=seed, **more)
    return clip


def changed(base: Model, clip: nn.Module) -> set[str]:
    """Names of what differs, buffers included."""
    before = base.clip.state_dict()
    return {k for k, v in clip.state_dict().items() if not torch.equal(v, before[k])}


@pytest.mark.parametrize("kind", ["vit", "effnet", "bert"])
def test_both_towers_learn_and_chance_and_statistics_stay(kind: Kind) -> None:
    base = model_of(kind, words(3))
    chance = torch.random.get_rng_state()
    clip = trained(base, made_up(6), Loop(steps=2, lr=1e-3, dropout=True))
    assert torch.equal(torch.random.get_rng_state(), chance)
    names = changed(base, clip)
    assert any(n.startswith("visual.") for n in names)
    assert any(not n.startswith("visual.") for n in names)
    assert not any("running" in n or n == "logit_scale" or n.endswith("num_batches_tracked") for n in names)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not() -> None:
    base, examples = model_of("effnet", words(3)), made_up(6)
    loop = Loop(steps=3, lr=1e-3, batch_size=4)
    first, again, other = (trained(base, examples, loop, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(v, again[k]) for k, v in first.items())
    assert not all(torch.equal(v, other[k]) for k, v in first.items())


def test_what_does_not_learn_is_the_same_bit_for_bit() -> None:
    base = model_of("vit", words(3))
    clip = trained(base, made_up(6), Loop(steps=2, lr=1e-3), learns="visual.ln_post")
    assert changed(base, clip) == {"visual.ln_post.weight", "visual.ln_post.bias"}


def test_the_loss_goes_down() -> None:
    text, examples = words(3), made_up(12)
    base = model_of("vit", text)
    clip = trained(base, examples, Loop(steps=60, lr=3e-4, pool=0))
    images, goal = np.concatenate(examples.pixels), torch.tensor(examples.targets)

    def wrong(model: Model) -> float:
        logits = model.logit_scale * model.encode_image(images) @ text.vectors(model).positive.T
        return float(nn.functional.cross_entropy(torch.tensor(logits), goal))

    after = Model(clip, base.tokenizer, base.preprocess, base.card, name="after", path=base.path)
    assert wrong(after) < wrong(base) - 0.1


def test_the_frozen_front_and_the_rest_give_the_whole() -> None:
    base = model_of("effnet", words(3))
    visual: Any = copy.deepcopy(base.clip).visual
    last = len(visual.trunk.blocks) - 1
    visual.trunk.blocks[last].requires_grad_(True)
    x = base.normalise(np.concatenate(made_up(4).pixels))
    front, rest = frozen_front(visual, 32)
    assert front is not None
    with torch.no_grad():
        torch.testing.assert_close(rest(front(x)), visual(x), atol=1e-4, rtol=1e-4)
    visual.trunk.bn1.requires_grad_(True)
    assert frozen_front(visual, 32)[0] is None
    assert frozen_front(model_of("vit", words(3)).clip.visual, 32)[0] is None


def test_training_behind_the_frozen_front_equals_training_through_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    base, examples = model_of("effnet", words(3)), made_up(6)
    loop = Loop(steps=3, lr=1e-3, pool=2, batch_size=4)
    last = f"blocks.{len(base.clip.visual.trunk.blocks) - 1}."  # type: ignore[union-attr]
    fast = trained(base, examples, loop, learns=last).state_dict()
    monkeypatch.setattr("medclip.adaptation.towers.train_loop.frozen_front", lambda visual, _size: (None, visual))
    slow = trained(base, examples, loop, learns=last).state_dict()
    for name, value in slow.items():
        torch.testing.assert_close(fast[name], value, atol=2e-3, rtol=0, msg=name)


def test_images_come_from_the_seed_one_view_at_a_time_and_are_not_mirrored() -> None:
    base = model_of("vit", words(3))
    examples = made_up(4, views=(1, 3))
    clip = copy.deepcopy(base.clip)
    rows = np.arange(4)

    def drawn(seed: int, turn: int, **options: Any) -> np.ndarray:
        loop = Loop(steps=8, lr=1e-3, **options)
        return TrainImages(clip, base, examples, loop, seed).draw(rows, turn)

    assert drawn(0, 0).shape == (4, 32, 32, 3)
    np.testing.assert_array_equal(drawn(0, 1), drawn(0, 1))
    assert not np.array_equal(drawn(0, 0), drawn(0, 1))
    assert not np.array_equal(drawn(0, 0), drawn(1, 0))
    for row, image in enumerate(drawn(0, 0, pool=0)):
        assert any(np.array_equal(image, view) for view in examples.pixels[row])
    still = {"crop": 1.0, "rotate_deg": 0.0, "brightness": 0.0, "contrast": 0.0}
    np.testing.assert_array_equal(drawn(0, 0, **still), drawn(0, 0, pool=0))
    np.testing.assert_array_equal(drawn(0, 0, flip=1.0, **still), drawn(0, 0, pool=0)[:, :, ::-1])


def test_prompts_are_drawn_or_all_taken() -> None:
    text = words(3)
    base = model_of("vit", text)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        every = Sentences(base, text, 0).encode(base.clip, generator).numpy()
        drawn = [Sentences(base, text, 1).encode(base.clip, generator).numpy() for _ in range(3)]
    np.testing.assert_allclose(every, text.vectors(base).positive, atol=1e-5)
    assert not all(np.allclose(d, drawn[0]) for d in drawn)
    of_first = base.encode_text(list(text.positive()[0]))
    assert all((abs(of_first - d[0]).max(axis=1) < 1e-5).any() for d in drawn)


def test_unknown_answers_are_left_out_of_the_loss() -> None:
    base = model_of("vit", words(3, multilabel=True))
    examples = made_up(6, multilabel=True)
    loop = Loop(steps=1, lr=1e-3)
    full = trained(base, examples, loop).state_dict()
    unknown = Examples(examples.pixels, examples.features, np.full_like(examples.targets, np.nan), examples.patients)
    assert changed(base, trained(base, unknown, loop)) == set()
    assert not all(torch.equal(v, base.clip.state_dict()[k]) for k, v in full.items())


def test_drop_out_is_used_where_it_is_asked_for_and_there_is_any() -> None:
    base, examples = model_of("bert", words(3)), made_up(6)
    plain, dropped, again = (
        trained(base, examples, Loop(steps=2, lr=1e-3, pool=0, dropout=d)).state_dict() for d in (False, True, True)
    )
    assert not all(torch.equal(v, plain[k]) for k, v in dropped.items())
    assert all(torch.equal(v, dropped[k]) for k, v in again.items())


def test_the_schedule_of_the_reference_is_another() -> None:
    base, examples = model_of("vit", words(3)), made_up(6)
    ours, theirs = (
        trained(base, examples, Loop(steps=6, lr=1e-3, batch_size=2, compat=c)).state_dict() for c in (None, "upstream")
    )
    assert not all(torch.equal(v, theirs[k]) for k, v in ours.items())


def test_a_loss_that_is_no_number_is_an_error() -> None:
    base, examples = model_of("vit", words(3)), made_up(6)
    with pytest.raises(MedclipError, match="loss of it became nan") as e:
        trained(base, examples, Loop(steps=4, lr=float("inf")))
    assert e.value.problem().reason is Reason.NON_FINITE


@pytest.mark.parametrize("bad", [{"steps": 0}, {"batch_size": 0}, {"sentences": -1}, {"pool": -1}])
def test_counts_that_cannot_be_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(MedclipError, match="cannot be"):
        Loop(**{"steps": 1, "lr": 1e-3, **bad})
