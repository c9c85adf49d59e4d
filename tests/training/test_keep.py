"""`train.keep: vr-lwf`: the start stays as it was, the new model is held to it, and a stopped run stays one run."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medclip.api.models import cite
from medclip.errors import MedclipError, Reason
from medclip.models.packs.card import ANCESTORS, STARTED_FROM, read_card, training_hashes, training_patients
from medclip.models.packs.manifest import pack_digest, weights_digest
from medclip.text.tokenizers.clip import ClipTokenizer
from medclip.text.tokenizers.tokenizer import load_tokenizer
from medclip.training.loop import run_recipe
from medclip.training.recipe.schema import load_recipe
from medclip.training.recipe.train import Keep
from medclip.training.result import read_log
from medclip.training.steps.frozen_models import Replay, random_sentences
from medclip.training.steps.loss_terms import Step, kept
from medclip.training.trainer import Trainer
from tests.kits.training import make_shards, tiny_recipe


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a model that is there before; its shards lie beside it."""
    folder = tmp_path_factory.mktemp("first")
    shards = make_shards(folder / "shards")
    own = {"key": "mine", "type": "software", "fields": {"title": "Mine", "year": "2026"}}
    data = {"key": "drawn", "of": ["made here"], "fields": {"title": "Drawn films"}}
    recipe = tiny_recipe(shards) | {"card": {"citations": [own, data]}}
    return run_recipe(recipe, ["train.max_steps=3"], out=folder / "run").out


@pytest.fixture
def again(recipe: dict[str, Any], first: Path) -> dict[str, Any]:
    """A recipe that goes on from it, and holds to it by few sentences."""
    parts = {k: copy.deepcopy(recipe[k]) for k in ("name", "seed", "data", "train")}
    parts["train"] |= {"keep": {"method": "vr-lwf", "sentences": 40, "length": 6}, "ema": 0, "lr": 0.01}
    return parts | {"model": {"start": str(first / "pack")}}


def test_vocabulary_of_clip_is_framed_and_has_no_special_id_inside() -> None:
    tokens_VL = random_sentences(ClipTokenizer(), 1000, 10, np.random.default_rng(3))
    assert tokens_VL.shape == (1000, 77)
    assert (tokens_VL[:, 0] == 49406).all()
    assert (tokens_VL[:, 11] == 49407).all()
    assert (tokens_VL[:, 12:] == 0).all()
    assert tokens_VL[:, 1:11].max() < 49406
    assert np.array_equal(tokens_VL, random_sentences(ClipTokenizer(), 1000, 10, np.random.default_rng(3)))
    assert not np.array_equal(tokens_VL, random_sentences(ClipTokenizer(), 1000, 10, np.random.default_rng(4)))


def test_vocabulary_of_a_tokenizer_in_a_folder_has_its_frame_too(first: Path) -> None:
    tokenizer = load_tokenizer(first / "tokenizer")
    framed = tokenizer.encode(["a chest x-ray"])[0]
    tokens_VL = random_sentences(tokenizer, 200, 6, np.random.default_rng(0))
    assert tokens_VL.shape == (200, tokenizer.context_length)
    assert (tokens_VL[:, 0] == framed[0]).all()
    assert (tokens_VL[:, 7] == tokenizer.eos_id).all()
    assert (tokens_VL[:, 8:] == tokenizer.pad_id).all()
    assert not np.isin(tokens_VL[:, 1:7], sorted(tokenizer.special_ids)).any()
    assert {framed[0], tokenizer.eos_id, tokenizer.pad_id} <= tokenizer.special_ids
    with pytest.raises(MedclipError, match=r"train\.keep\.length is 23") as told:
        random_sentences(tokenizer, 2, 23, np.random.default_rng(0))
    assert told.value.reason == Reason.RECIPE_INVALID


def test_the_old_model_is_a_copy_that_no_step_changes(again: dict[str, Any], tmp_path: Path) -> None:
    trainer = Trainer(load_recipe(again), tmp_path / "run")
    assert trainer.replay is not None
    old = trainer.replay._old
    before = {name: value.clone() for name, value in old.state_dict().items()}
    assert before.keys() >= {"visual.head.proj.weight", "logit_scale"}
    trainer.run(lambda step: step == 2)
    now = dict(trainer.towers.named_parameters())
    assert all(torch.equal(value, before[name]) for name, value in old.state_dict().items())
    assert not torch.equal(now["visual.head.proj.weight"].detach(), before["visual.head.proj.weight"])


def test_nothing_has_moved_at_the_start_and_the_first_gradient_of_it_is_zero(
    again: dict[str, Any], tmp_path: Path
) -> None:
    trainer = Trainer(load_recipe(again, ["augment.flip=0"]), tmp_path / "run")
    trainer.towers.eval()
    batch = next(iter(trainer.data.training(0, 1)))
    inputs = trainer.computer.prepare(batch, 0)
    outputs = trainer.computer._forward(inputs, slice(0, 6))
    step = Step(trainer.recipe, trainer.towers.clip, trainer.world, inputs, outputs)
    ((_, moved),) = kept(step, trainer.recipe.train.keep, trainer.replay)
    trainer.data.close()
    assert outputs.extra["keep"].shape == outputs.image_BD.shape
    assert moved.item() == pytest.approx(0, abs=1e-4)
    (gradient,) = torch.autograd.grad(moved, outputs.image_BD)
    assert float(gradient.abs().max()) < 1e-3
    assert trainer.computer.kept_kl(outputs) == pytest.approx(0, abs=1e-4)


def kept_kl(folder: Path) -> list[float]:
    return [event["kept_kl"] for event in read_log(folder / "log.jsonl") if event["kind"] == "val"]


def test_images_drift_less_with_it_than_with_next_to_none_of_it(again: dict[str, Any], tmp_path: Path) -> None:
    changes = ["train.epochs=12", "train.warmup_steps=0", "augment.flip=0"]
    run_recipe(again, [*changes, "train.keep.weight=30"], out=tmp_path / "held")
    run_recipe(again, [*changes, "train.keep.weight=1e-9"], out=tmp_path / "free")
    held, free = kept_kl(tmp_path / "held"), kept_kl(tmp_path / "free")
    assert len(held) == 12
    assert held[-1] < 0.5 * free[-1]
    assert free[-1] > 0.01


@pytest.mark.parametrize("locked", [True, False])
def test_a_run_says_that_a_free_text_tower_is_held_by_nothing(
    again: dict[str, Any], tmp_path: Path, locked: bool
) -> None:
    run_recipe(again, ["train.max_steps=1", f"model.lock_text={str(locked).lower()}"], out=tmp_path / "run")
    notes = [event["note"] for event in read_log(tmp_path / "run" / "log.jsonl") if event["kind"] == "note"]
    assert any("the text tower is free" in note for note in notes) is not locked


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(event["step"], event["loss"]) for event in read_log(folder / "log.jsonl") if event["kind"] == "step"]


def test_chunks_give_the_loss_of_the_whole_batch(
    again: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = ["train.max_steps=2", "train.keep.symmetric=true"]
    run_recipe(again, changes, out=tmp_path / "at_once")
    asked, images = [], Replay.images
    monkeypatch.setattr(Replay, "images", lambda self, x: asked.append(torch.is_grad_enabled()) or images(self, x))
    run_recipe(again, [*changes, "train.micro_batch=2"], out=tmp_path / "chunks")
    assert asked
    assert not any(asked)  # a chunk that is encoded again for its gradient does not go through the old tower again
    at_once, chunks = losses(tmp_path / "at_once"), losses(tmp_path / "chunks")
    assert [value for _, value in chunks] == pytest.approx([value for _, value in at_once], rel=1e-4)


def test_a_run_does_not_go_on_held_to_another_model(again: dict[str, Any], first: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("effusion\nmass\nrib\n")
    again["train"]["keep"] |= {"words": str(words), "length": 3}
    run_recipe(again, out=tmp_path / "run", stop=lambda step: step == 2)
    words.write_text("effusion\nmass\nheart\n")
    with pytest.raises(MedclipError, match=r"model\.start, or the words") as told:
        run_recipe(again, out=tmp_path / "run")
    assert told.value.reason == Reason.OUTPUT_IN_USE
    words.write_text("effusion\nmass\nrib\n")
    assert run_recipe(again, out=tmp_path / "run").pack is not None


@pytest.mark.parametrize(("content", "reason"), [(None, Reason.MISSING_FILE), ("one\n\none\n", Reason.TABLE_INVALID)])
def test_words_that_make_no_vocabulary_are_refused(
    again: dict[str, Any], tmp_path: Path, content: str | None, reason: Reason
) -> None:
    words = tmp_path / "words.txt"
    if content is not None:
        words.write_text(content)
    again["train"]["keep"] |= {"words": str(words)}
    with pytest.raises(MedclipError) as told:
        Trainer(load_recipe(again), tmp_path / "run")
    assert told.value.reason == reason


def test_sentences_stay_unless_they_are_drawn_anew(again: dict[str, Any], tmp_path: Path) -> None:
    trainer = Trainer(load_recipe(again), tmp_path / "run")
    assert trainer.replay is not None
    assert trainer.tokenizer is not None
    clip = trainer.towers.clip
    fixed = Replay(Keep(sentences=8), clip, trainer.tokenizer, 3)
    anew = Replay(Keep(sentences=8, resample_every=2), clip, trainer.tokenizer, 3)
    assert torch.equal(fixed.sentences(0), fixed.sentences(9))
    assert torch.equal(anew.sentences(0), fixed.sentences(0))
    assert torch.equal(anew.sentences(0), anew.sentences(1))
    assert not torch.equal(anew.sentences(1), anew.sentences(2))
    assert fixed.sentences(0).norm(dim=1).tolist() == pytest.approx([1.0] * 8, abs=1e-5)


def test_the_name_of_the_method_stands_for_its_usual_values(again: dict[str, Any]) -> None:
    again["train"]["keep"] = "vr-lwf"
    assert load_recipe(again).train.keep == Keep(sentences=1000, length=10, temperature=2.0, weight=1.0)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (["model.start=null"], "model.start"),
        (["objective.views={}"], "objective.views"),
        (["objective.contrastive=0", "objective.masked={}"], "objective.contrastive: 0"),
        (["train.keep.method=ewc"], "vr-lwf"),
    ],
)
def test_what_it_does_not_go_with_is_refused(again: dict[str, Any], changes: list[str], named: str) -> None:
    with pytest.raises(MedclipError, match=named) as told:
        load_recipe(again, changes)
    assert told.value.reason == Reason.RECIPE_INVALID


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("train.keep", None),
        ("train.best_by", None),
        ("objective.other_source", "ignored"),
        ("data.source_power", None),
        ("data.max_repeats", None),
        ("data.together", None),
    ],
)
def test_without_it_the_digest_of_a_recipe_is_what_it_was(recipe: dict[str, Any], key: str, other: str | None) -> None:
    plan = load_recipe(recipe)
    assert not any(name.startswith(key) for name in plan.decisive())
    if other is not None:
        assert load_recipe(recipe, [f"{key}={other}"]).digest() != plan.digest()


def test_the_card_says_what_the_run_began_with_and_keeps_its_data_and_lists(
    again: dict[str, Any], first: Path, tmp_path: Path
) -> None:
    pack = run_recipe(again, ["train.max_steps=1"], out=tmp_path / "run").pack
    assert pack is not None
    card, old = read_card(pack), read_card(first / "pack")
    assert card.created_from[STARTED_FROM].startswith(f"{old.name} (")
    assert card.created_from[ANCESTORS] == [weights_digest(first / "pack")]
    assert f"made here, by way of {old.name}" in [source.name for source in card.data]
    assert [(work.key, work.of) for work in card.citations] == [
        ("mine", (STARTED_FROM,)),
        ("drawn", (f"made here, by way of {old.name}",)),
    ]
    assert card.citations[0].fields["version"] == old.version
    assert pack_digest(first / "pack") in card.citations[0].fields["note"]
    assert [work.of for work in cite(first / "pack").citations] == [(), ("made here",)]
    assert cite(pack).notes == (
        "Of made here its card names no work to cite: the entry is what it says in words.",
        "Its card states no licence of the weights.",
        "Its card does not say in which year it was published.",
    )
    for read in (training_hashes, training_patients):
        listed, before = read(pack, card), read(first / "pack", old)
        assert listed is not None
        assert before is not None
        assert listed >= before
