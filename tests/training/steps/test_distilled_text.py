"""A rotary text tower follows the absolute one that it was made of: short texts, windows of long ones, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

import medclip
from medclip.errors import MedclipError, Reason
from medclip.models.interchange.load_start import load_start
from medclip.models.packs.card import Card, read_card
from medclip.models.packs.pack import load_model, save_pack
from medclip.objectives.distill import mean_of_windows, token_errors
from medclip.training.loop import run_recipe
from medclip.training.recipe.schema import load_recipe
from medclip.training.result import read_log
from medclip.training.steps.frozen_models import TowerTeacher
from tests.kits.training import make_shards, tiny_recipe

SENTENCES = (
    "The heart is of normal size.",
    "No effusion is seen on the left.",
    "There is a bright disc in the upper field.",
    "The bones are as they should be.",
    "A small nodule lies behind the heart.",
    "Both lungs are clear without a consolidation.",
)


def drawn_caption(seed: int) -> str:
    """A sentence in which the order of words matters: which of two things is where."""
    rng = np.random.default_rng(seed)
    first, second = rng.permutation(["nodule", "mass", "scar", "cyst", "drain", "wire"])[:2]
    side, other = rng.permutation(["left", "right"])
    return f"A {first} on the {side}, a {second} on the {other}."


def texts_of(number: int) -> dict[str, str]:
    captions = {"captions": "\n".join(drawn_caption(20 * number + i) for i in range(20))}
    if number % 4 == 3:
        return captions
    order = np.random.default_rng(number).permutation(len(SENTENCES))
    return captions | {"long_captions": " ".join(SENTENCES[i] for i in order)}


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("long"), columns=texts_of)


@pytest.fixture(scope="session")
def teacher(spoken: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack whose text tower has a table of 24 positions, which matter, and two layers."""
    recipe = tiny_recipe(spoken)
    recipe["model"] |= {"text_layers": 2, "text_width": 32, "embed_dim": 32}
    folder = tmp_path_factory.mktemp("teacher")
    pack = run_recipe(recipe, ["train.epochs=3", "train.lr=0.003"], out=folder / "run").pack
    assert pack is not None
    started = load_start(pack)
    started.tokenizer.save(folder / "words")
    towers: Any = started.model
    with torch.no_grad():
        towers.text.positional_embedding.mul_(20)
    card = Card(name="teacher")
    return save_pack(
        folder / "pack", towers, folder / "words", started.preprocess, card, config=started.config, half=False
    )


@pytest.fixture
def plan(spoken: Path, teacher: Path) -> dict[str, Any]:
    """Distil a rotary tower of 96 tokens from it; the image tower stays as it is."""
    recipe = tiny_recipe(spoken)
    parts = {name: recipe[name] for name in ("name", "seed", "data", "train")}
    parts["train"] |= {"ema": 0, "lr": 0.003}
    return parts | {
        "text": {"context_length": 96},
        "model": {"start": str(teacher), "text": {"positions": "rotary"}, "lock_image": True},
        "augment": {"flip": 0, "crop_scale": [1.0, 1.0], "rotate_deg": 0, "brightness": 0, "contrast": 0},
        "objective": {"contrastive": 0, "losses": {"distilled_captions": {}}},
    }


def losses(folder: Path) -> list[float]:
    return [event["loss"] for event in read_log(folder / "log.jsonl") if event["kind"] == "step"]


def test_a_student_comes_near_its_teacher_and_tells_texts_apart_as_it_does(
    plan: dict[str, Any], teacher: Path, tmp_path: Path
) -> None:
    before = load_start(teacher, overrides={"text_cfg": {"context_length": 96, "rotary": {}}})
    words = [drawn_caption(10_000 + i) for i in range(24)]
    changes = ["train.epochs=40", "train.lr=0.01", "data.native_share=1", "data.val_split=null"]
    run = medclip.pretrain(plan, overrides=changes, out=tmp_path / "run")
    values = losses(tmp_path / "run")
    assert np.mean(values[-6:]) < 0.5 * values[0]
    assert run.pack is not None
    student = load_model(run.pack)
    with torch.no_grad():
        clip: Any = before.model.eval()
        start = clip.encode_text(torch.from_numpy(before.tokenizer.encode(words)), normalize=True).numpy()
    old_words, new_words = load_model(teacher).encode_text(words), student.encode_text(words)
    assert 1 - (new_words * old_words).sum(1).mean() < 0.2 * (1 - (start * old_words).sum(1).mean())
    # What ranks images is how texts differ from each other; and images are where they were.
    differences = [(vectors - vectors.mean(0)).ravel() for vectors in (old_words, start, new_words)]
    of_start, of_student = np.corrcoef(differences)[0, 1:]
    assert of_start < 0.3
    assert of_student > 0.4
    old, new = (
        {name: value for name, value in model.clip.state_dict().items() if name.startswith("visual.")}
        for model in (load_model(teacher), student)
    )
    assert all(torch.equal(value.half(), new[name].half()) for name, value in old.items())
    facts = read_card(run.pack).created_from
    assert facts["text_positions"] == "rotary, base 10,000, 96 tokens"


def test_long_texts_are_held_to_the_mean_of_their_windows_in_chunks_too(plan: dict[str, Any], tmp_path: Path) -> None:
    plan["objective"]["losses"] = {"distilled_captions": {"tokens": 0}, "distilled_long": {"weight": 2}}
    steps = ["train.max_steps=2"]
    medclip.pretrain(plan, overrides=steps, out=tmp_path / "whole")
    medclip.pretrain(plan, overrides=[*steps, "train.micro_batch=4"], out=tmp_path / "chunks")
    whole = losses(tmp_path / "whole")
    assert losses(tmp_path / "chunks") == pytest.approx(whole, rel=1e-4)
    plan["objective"]["losses"]["distilled_long"] = {"weight": 1}
    medclip.pretrain(plan, overrides=steps, out=tmp_path / "once")
    once = losses(tmp_path / "once")
    assert 0 < 2 * once[0] - whole[0] < once[0]  # what captions add
    medclip.pretrain(plan, overrides=["train.epochs=12", "train.lr=0.01"], out=tmp_path / "long")
    longer = losses(tmp_path / "long")
    assert np.mean(longer[-6:]) < 0.7 * longer[0]


def test_long_captions_are_contrasted_beside_short_ones_in_a_rotary_tower(
    plan: dict[str, Any], teacher: Path, tmp_path: Path
) -> None:
    """Stage 2 goes on from the pack of stage 1, which has the positions and the context already."""
    first = medclip.pretrain(plan, overrides=["train.max_steps=2"], out=tmp_path / "first")
    assert first.pack is not None
    joint = {name: plan[name] for name in ("name", "seed", "data", "train", "augment")}
    joint |= {"model": {"start": str(first.pack)}, "objective": {"losses": {"long_captions": {}}}}
    second = medclip.pretrain(joint, overrides=["train.max_steps=2"], out=tmp_path / "second")
    assert second.pack is not None
    text_cfg = json.loads((second.pack / "open_clip_config.json").read_text())["model_cfg"]["text_cfg"]
    assert (text_cfg["rotary"], text_cfg["context_length"]) == ({"base": 10_000.0}, 96)
    joint["objective"] = {"losses": {"distilled_captions": {}}}
    with pytest.raises(MedclipError, match="has rotary positions, and would teach nothing else") as refused:
        medclip.pretrain(joint, out=tmp_path / "third")
    assert refused.value.reason is Reason.RECIPE_INVALID
    again = joint | {"objective": {"losses": {"distilled_captions": {"teacher": str(teacher)}}}}
    medclip.pretrain(again, overrides=["train.max_steps=1"], out=tmp_path / "fourth")
    assert len(losses(tmp_path / "fourth")) == 1


def test_another_teacher_is_refused_when_a_run_goes_on(
    plan: dict[str, Any], teacher: Path, spoken: Path, tmp_path: Path
) -> None:
    run_recipe(plan, ["train.checkpoint_every=1"], out=tmp_path / "run", stop=lambda step: step == 2)
    recipe = tiny_recipe(spoken)
    recipe["model"] |= {"text_layers": 2, "text_width": 32, "embed_dim": 32}
    other = run_recipe(recipe, ["train.max_steps=1"], out=tmp_path / "other").pack
    assert other is not None
    (tmp_path / "elsewhere").mkdir()
    other.rename(tmp_path / "elsewhere" / teacher.name)
    plan["model"]["start"] = str(tmp_path / "elsewhere" / teacher.name)
    with pytest.raises(MedclipError, match=r"a teacher of objective\.losses is not the one") as refused:
        run_recipe(plan, ["train.checkpoint_every=1"], out=tmp_path / "run")
    assert refused.value.reason is Reason.OUTPUT_IN_USE


def tower_teacher(place: Path | str, context: int) -> TowerTeacher:
    started, longer = load_start(place), load_start(place, overrides={"text_cfg": {"context_length": context}})
    return TowerTeacher(started.model, started.tokenizer, longer.tokenizer, torch.device("cpu"))


def test_windows_are_whole_sentences_that_fit_and_end_with_the_students_context() -> None:
    teacher, tokenizer = tower_teacher("medclip-mini", 100), load_start("medclip-mini").tokenizer

    def words_of(texts: list[str], *, only_longer: bool = False) -> tuple[list[int], list[int]]:
        windows = teacher.windows(texts, only_longer=only_longer)
        ids = windows["tokens_WL"].numpy()
        assert ids.shape[1] in (1, 40)
        assert all((row == tokenizer.eos_id).sum() == 1 for row in ids)
        lengths = [int((row == tokenizer.eos_id).argmax()) + 1 for row in ids]
        assert all(length <= 40 for length in lengths)
        return lengths, windows["text_W"].tolist()

    short, long = "Clear lungs.", " ".join(SENTENCES)
    _, numbers = words_of([short, "", long, short])
    assert (numbers[0], numbers[-1]) == (0, 3)
    assert set(numbers) == {0, 2, 3}
    assert numbers.count(2) > 1
    assert set(words_of([short, "", long, short], only_longer=True)[1]) == {2}
    assert words_of([short], only_longer=True) == ([], [])
    endless, numbers = words_of(["nodule " * 60])  # one sentence that does not fit
    assert len(endless) > 1
    assert sum(length - 2 for length in words_of([long * 20])[0]) <= 98


def test_a_target_is_the_mean_of_windows_and_a_short_text_its_own(teacher: Path) -> None:
    of_tower, model = tower_teacher(teacher, 96), load_model(teacher)
    windows = of_tower.windows([SENTENCES[0], " ".join(SENTENCES)], only_longer=False)
    mean = mean_of_windows(of_tower.features(windows["tokens_WL"]), windows["text_W"], 3)
    np.testing.assert_allclose(mean[0].numpy(), model.encode_text([SENTENCES[0]])[0], atol=1e-5)
    of_long = of_tower.features(windows["tokens_WL"][1:])
    np.testing.assert_allclose(mean[1].numpy(), normalize(of_long.mean(0), dim=0).numpy(), atol=1e-6)
    assert not mean[2].any()


def test_states_of_a_text_in_a_longer_context_are_those_of_its_own(teacher: Path) -> None:
    of_tower, model = tower_teacher(teacher, 96), load_model(teacher)
    longer = load_start(teacher, overrides={"text_cfg": {"context_length": 96}}).tokenizer
    texts = ["pneumonia", SENTENCES[0], " ".join(SENTENCES)]
    states, pooled, mask, fits = of_tower.states(torch.from_numpy(longer.encode(texts)), 96)
    assert fits.tolist() == [True, True, False]
    np.testing.assert_allclose(pooled[:2].numpy(), model.encode_text(texts[:2]), atol=1e-5)
    lengths = [int((row == longer.eos_id).argmax()) + 1 for row in longer.encode(texts[:2])]
    assert mask[:2].sum(1).tolist() == lengths
    assert states.shape == (3, 24, 32)


def test_errors_of_tokens_are_summed_over_those_that_count() -> None:
    student = torch.tensor([[[1.0, 3.0], [9.0, 9.0]]], requires_grad=True)
    out = token_errors(student, torch.zeros(1, 2, 2), torch.tensor([[True, False]]))
    assert out.tolist() == [[5.0, 1.0]]
    out[:, 0].sum().backward()
    assert student.grad is not None
    assert student.grad.tolist() == [[[1.0, 3.0], [0.0, 0.0]]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"text": {"positions": "absolute"}}, "positions"),
        ({"text": {"positions": "rotary", "base": 0}}, "base"),
        ({"text": {"positions": "rotary", "theta": 3}}, "theta"),
    ],
)
def test_a_recipe_that_says_something_else_of_positions_is_refused(
    plan: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    plan["model"] |= changes
    with pytest.raises(MedclipError, match=said) as refused:
        load_recipe(plan)
    assert refused.value.reason is Reason.RECIPE_INVALID


def test_a_teacher_of_other_words_or_none_is_refused(plan: dict[str, Any], spoken: Path, tmp_path: Path) -> None:
    plan["objective"]["losses"] = {"distilled_captions": {"teacher": "medclip-mini"}}
    with pytest.raises(MedclipError, match="other widths or other words"):
        medclip.pretrain(plan, out=tmp_path / "other")
    built = tiny_recipe(spoken)
    built["model"] |= {"text": {"positions": "rotary"}}
    built["objective"] = {"losses": {"distilled_captions": {}}}
    with pytest.raises(MedclipError, match=r"there is no teacher: the recipe has no model\.start"):
        medclip.pretrain(built, out=tmp_path / "none")
    del built["objective"]
    run = medclip.pretrain(built, overrides=["train.max_steps=1"], out=tmp_path / "built")  # rotary from the beginning
    assert run.pack is not None
    assert not hasattr(load_model(run.pack).clip.text, "positional_embedding")


def test_digests_of_recipes_without_rotary_positions_stay_what_they_were(plan: dict[str, Any], spoken: Path) -> None:
    assert not [key for key in load_recipe(tiny_recipe(spoken)).decisive() if key.startswith("model.text.")]
    assert "model.text" not in load_recipe(tiny_recipe(spoken)).decisive()
    assert load_recipe(plan).decisive()["model.text.positions"] == "rotary"
