"""Losses of single tokens, through the one trainer: chunks change nothing, nothing of them is in the pack."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import medclip
from medclip.errors import MedclipError, Reason
from medclip.training.losses import LOSSES
from medclip.training.recipe.schema import load_recipe
from medclip.training.recipe.text_losses import MaskedWords, TokenAlignment
from medclip.training.result import read_log
from medclip.training.steps.loss_terms import Start
from medclip.training.steps.token_terms import TokenHeads, WordGuesser, mask_captions, token_heads, word_guesser
from medclip.training.trainer import Trainer

BOTH = "objective.losses={token_alignment: {mode: %s, hardest: 3}, masked_words: {share: 0.4}}"


@pytest.fixture
def plan(recipe: dict[str, Any]) -> dict[str, Any]:
    """Six steps of a small ViT, images as they are."""
    recipe["model"] |= {"image_tower": "test_vit", "text_layers": 2}
    recipe["augment"] = {"flip": 0, "crop_scale": [1.0, 1.0], "rotate_deg": 0, "brightness": 0, "contrast": 0}
    return recipe


def _first_losses(plan: dict[str, Any], out: Path, *changes: str) -> list[float]:
    medclip.pretrain(plan, overrides=["train.max_steps=2", *changes], out=out)
    return [event["loss"] for event in read_log(out / "log.jsonl") if event["kind"] == "step"]


def _trainer(plan: dict[str, Any], out: Path, *changes: str) -> Trainer:
    return Trainer(load_recipe(plan, list(changes)), out)


def _guesser(plan: dict[str, Any], out: Path, settings: str = "{}") -> WordGuesser:
    trainer = _trainer(plan, out, f"objective.losses={{masked_words: {settings}}}")
    (state,) = (one.state for one in trainer.losses if one.name == "masked_words")
    return state


@pytest.mark.parametrize("mode", ["relaxed", "hungarian", "filip"])
def test_chunks_learn_what_the_batch_learns_and_the_pack_is_that_of_a_plain_run(
    plan: dict[str, Any], tmp_path: Path, mode: str
) -> None:
    whole = _first_losses(plan, tmp_path / "whole", BOTH % mode)
    chunks = _first_losses(plan, tmp_path / "chunks", BOTH % mode, "train.micro_batch=4")
    assert chunks == pytest.approx(whole, rel=1e-4)
    plain = _first_losses(plan, tmp_path / "plain")
    assert whole[0] > plain[0] + 0.5
    with_both, without = (load_file(tmp_path / name / "pack" / "model.safetensors") for name in ("whole", "plain"))
    assert {name: x.shape for name, x in with_both.items()} == {name: x.shape for name, x in without.items()}


def test_masked_words_alone_are_added_chunk_by_chunk(plan: dict[str, Any], tmp_path: Path) -> None:
    alone = ("objective.contrastive=0", "objective.losses={masked_words: {weight: 1, share: 0.4}}")
    whole = _first_losses(plan, tmp_path / "whole", *alone)
    assert _first_losses(plan, tmp_path / "chunks", *alone, "train.micro_batch=4") == pytest.approx(whole, rel=1e-4)
    assert LOSSES["masked_words"].adds_up


def test_places_of_a_map_are_patches_and_a_frozen_front_still_has_them(recipe: dict[str, Any], tmp_path: Path) -> None:
    aligned = "objective.losses={token_alignment: {}}"
    plain = _first_losses(recipe, tmp_path / "plain", "model.freeze_blocks=2")
    assert _first_losses(recipe, tmp_path / "map", aligned, "model.freeze_blocks=2")[0] > plain[0] + 0.3


def test_the_heads_learn_beside_the_towers(plan: dict[str, Any], tmp_path: Path) -> None:
    trainer = _trainer(plan, tmp_path, BOTH % "relaxed")
    heads, guesser = (one.state for one in trainer.losses if one.name in ("token_alignment", "masked_words"))
    before = {name: p.detach().clone() for part in (heads, guesser) for name, p in part.named_parameters()}
    trainer.run(lambda step: False)
    still = [n for part in (heads, guesser) for n, p in part.named_parameters() if torch.equal(p, before[n])]
    assert not still


def test_stop_words_marks_and_special_tokens_are_no_words(plan: dict[str, Any], tmp_path: Path) -> None:
    trainer = _trainer(plan, tmp_path, "objective.losses={token_alignment: {}}")
    (heads,) = (one.state for one in trainer.losses if one.name == "token_alignment")
    assert isinstance(heads, TokenHeads)
    words = trainer.tokenizer
    assert words is not None
    (ids,) = words.encode(["a left disc of the chest."])
    matched = [words.decode([i]).strip() for i in ids if heads.is_word_V[i]]
    assert "left" in "".join(matched)
    assert not {"a", "of", "the", "."} & {*matched}
    assert not heads.is_word_V[sorted(words.special_ids)].any()


def _logits(plan: dict[str, Any], out: Path, layers: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Guess the same captions beside two images each."""
    trainer = _trainer(plan, out, f"objective.losses={{masked_words: {{fuse_layers: {layers}}}}}")
    (guesser,) = (one.state for one in trainer.losses if one.name == "masked_words")
    text = getattr(trainer.towers.clip, "text", trainer.towers.clip)
    assert trainer.tokenizer is not None
    tokens = torch.from_numpy(trainer.tokenizer.encode(["a chest film of a disc", "no disc"])).long()
    guessed = torch.zeros_like(tokens, dtype=torch.bool)
    guessed[:, 2] = True
    images, used = torch.eye(16)[:4].split(2), tokens != trainer.tokenizer.pad_id
    first, second = (guesser.logits(text, tokens, used, guessed, guessed, x) for x in images)
    return first, second


def test_without_fused_layers_logits_do_not_depend_on_the_image(plan: dict[str, Any], tmp_path: Path) -> None:
    assert torch.equal(*_logits(plan, tmp_path / "none", "[]"))
    assert not torch.allclose(*_logits(plan, tmp_path / "some", "[1]"))


def test_a_causal_tower_sees_what_comes_behind_a_mask_and_no_padding(plan: dict[str, Any], tmp_path: Path) -> None:
    trainer = _trainer(plan, tmp_path, "objective.losses={masked_words: {}}")
    (guesser,) = (one.state for one in trainer.losses if one.name == "masked_words")
    text = getattr(trainer.towers.clip, "text", trainer.towers.clip)
    tokens = torch.tensor([[3, 40, 41, 42, 5, 0, 0], [3, 40, 41, 43, 5, 0, 0], [3, 40, 41, 42, 5, 60, 0]])
    guessed = torch.zeros_like(tokens, dtype=torch.bool)
    guessed[:, 2] = True
    used = (torch.arange(7) < 5).expand(3, -1)
    one, other, padded = guesser.logits(text, tokens, used, guessed, guessed, torch.eye(16)[:1].expand(3, -1))
    assert not torch.allclose(one, other)
    torch.testing.assert_close(one, padded)


def test_names_of_findings_are_masked_as_a_whole(plan: dict[str, Any], tmp_path: Path) -> None:
    guesser = _guesser(plan, tmp_path, "{share: 0.2}")
    caption = "a chest film with pleural effusion on the left"
    (ids,) = guesser.tokenizer.encode([caption])
    (span,) = guesser._places("pleural effusion", ids)
    num_words = int((~guesser.special[ids]).sum())
    whole = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        out, masked, target = guesser.mask(ids, ["effusion", "pleural effusion"], rng)
        named = target[span] >= 0
        assert named.all() or not named.any()
        whole += bool(named.all())
        assert (target >= 0).sum() <= round(0.2 * num_words) - 1 + len(span)
        assert not (masked | (out != ids))[target < 0].any()
        assert not masked[guesser.special[ids]].any()
    assert whole


def test_of_ten_eight_are_masked_and_one_is_another_word(plan: dict[str, Any], tmp_path: Path) -> None:
    guesser = _guesser(plan, tmp_path, "{share: 0.9}")
    (ids,) = guesser.tokenizer.encode(["a chest film with pleural effusion on the left"])
    drawn = [guesser.mask(ids, [], np.random.default_rng(seed)) for seed in range(300)]
    num = sum(int((target >= 0).sum()) for *_, target in drawn)
    assert sum(int(masked.sum()) for _, masked, _ in drawn) / num == pytest.approx(0.8, abs=0.03)
    changed = sum(int((out != ids).sum()) for out, *_ in drawn)
    assert changed / num == pytest.approx(0.1, abs=0.03)
    nothing = guesser.mask(guesser.tokenizer.encode([""])[0], [], np.random.default_rng(0))
    assert not nothing[1].any()
    assert (nothing[2] == -1).all()


def test_what_is_masked_depends_on_seed_step_and_sample_alone(plan: dict[str, Any], tmp_path: Path) -> None:
    guesser = _guesser(plan, tmp_path, "{share: 0.4}")
    texts = ("a chest film of pneumonia in both lungs", "a disc in the chest, bright")
    tokens = guesser.tokenizer.encode(texts).astype(np.int32)

    def masked(step: int, rows: list[int]) -> dict[str, torch.Tensor]:
        parts = {"texts": tuple(texts[i] for i in rows), "keys": tuple(f"k{i}" for i in rows), "valid": [True, True]}
        batch: Any = SimpleNamespace(tokens=tokens[rows], num_tokens=24, **parts)
        return dict(mask_captions(guesser, batch, step))

    first, turned, later = masked(3, [0, 1]), masked(3, [1, 0]), masked(4, [0, 1])
    assert all(torch.equal(first[name], turned[name].flip(0)) for name in first)
    assert not torch.equal(first["target_BL"], later["target_BL"])


def test_towers_without_patches_or_words_are_refused(plan: dict[str, Any], tmp_path: Path) -> None:
    words = _guesser(plan, tmp_path).tokenizer
    settings = load_recipe(plan, [BOTH % "filip"])

    def start(**parts: nn.Module) -> Start:
        return Start(settings, SimpleNamespace(**parts), 8, words, torch.device("cpu"))

    with pytest.raises(MedclipError, match="image tower of the class Linear gives none here"):
        token_heads(start(visual=nn.Linear(1, 1)), TokenAlignment())
    with pytest.raises(MedclipError, match=r"masked_words: it reads the words .* this tower is a Linear"):
        word_guesser(start(text=nn.Linear(1, 1)), MaskedWords())


@pytest.mark.parametrize(
    ("losses", "cause"),
    [
        ("{masked_words: {fuse_layers: [0, 2]}}", "no text layer 2 to fuse the image at: the tower has 2"),
        ("{token_alignment: {cap: 0}}", "cap"),
        ("{masked_words: {share: 1}}", "share"),
    ],
)
def test_what_cannot_be_is_refused(plan: dict[str, Any], tmp_path: Path, losses: str, cause: str) -> None:
    with pytest.raises(MedclipError, match=cause) as refused:
        _trainer(plan, tmp_path, f"objective.losses={losses}")
    assert refused.value.reason is Reason.RECIPE_INVALID
