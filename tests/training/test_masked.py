"""Training without words: a masked autoencoder, from shards to a pack of an image tower alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from medclip.errors import MedclipError, Reason
from medclip.models.packs.pack import load_model, pack_card, verify_pack
from medclip.training.batches import samples
from medclip.training.batches.loader import TEXT, Batch
from medclip.training.loop import run_recipe
from medclip.training.recipe.schema import load_recipe
from medclip.training.result import read_log
from medclip.training.trainer import Trainer
from tests.kits.training import hidden_loss, masked_recipe


@pytest.fixture
def masked(shards: Path) -> dict[str, Any]:
    return masked_recipe(shards)


def _entries(out: Path, kind: str) -> list[dict[str, Any]]:
    return [e for e in read_log(out / "log.jsonl") if e["kind"] == kind]


def _losses(out: Path) -> list[float]:
    return [e["loss"] for e in _entries(out, "step")]


@pytest.fixture(scope="module")
def run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of six steps."""
    out = tmp_path_factory.mktemp("masked") / "run"
    run_recipe(masked_recipe(shards), out=out)
    return out


def test_a_run_without_words_ends_in_an_image_only_pack(run: Path) -> None:
    pack = run / "pack"
    info = verify_pack(pack)
    assert not info.has_text
    settings = json.loads((pack / "open_clip_config.json").read_text())["model_cfg"]
    assert "text_cfg" not in settings
    assert settings["vision_cfg"]["timm_pool"] == "mean"
    assert not (run / "tokenizer").exists()
    assert not (pack / "tokenizer.json").exists()
    assert all(name.startswith("visual.trunk.") for name in load_file(pack / "model.safetensors"))
    card = pack_card(pack)
    assert [source.num_images for source in card.data] == [20]
    model = load_model(pack)
    vectors = model.encode_image(np.zeros((2, 32, 32, 3), np.uint8))
    assert vectors.shape == (2, model.dim)


def test_its_log_has_losses_and_a_validation_without_retrieval(run: Path) -> None:
    assert all(set(e) - {"kind", "step"} >= {"loss", "grad_norm"} and "scale" not in e for e in _entries(run, "step"))
    validations = _entries(run, "val")
    assert [set(e) - {"kind", "step"} for e in validations] == [{"val_loss", "num_images", "num_patients"}] * 2
    assert validations[1]["val_loss"] != validations[0]["val_loss"]


def test_samples_without_a_caption_are_good_samples(
    masked: dict[str, Any], recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "draw_stated", lambda *a, **b: ("", True))
    batch, other = (_first_batch(plan, tmp_path / plan["name"]) for plan in (masked, recipe))
    assert (batch.tokens.shape, batch.num_tokens, set(batch.texts)) == ((6, 0), 0, {""})
    assert batch.valid.all()
    assert not other.valid.any()
    assert (batch.pair_keys[:, TEXT] == -1).all()


def _first_batch(recipe: dict[str, Any], out: Path) -> Batch:
    trainer = Trainer(load_recipe(recipe), out)
    batch = next(iter(trainer.data.training(0, 1)))
    trainer.data.close()
    return batch


def test_chunks_of_a_batch_give_what_the_whole_batch_gives(masked: dict[str, Any], run: Path, tmp_path: Path) -> None:
    run_recipe(masked, ["train.micro_batch=4"], out=tmp_path / "chunks")  # 6 = 4 + 2
    assert _losses(tmp_path / "chunks") == pytest.approx(_losses(run), abs=1e-5)


@pytest.mark.parametrize("micro_batch", [4, 6])
def test_without_words_each_chunk_goes_through_the_tower_once(
    masked: dict[str, Any], tmp_path: Path, micro_batch: int
) -> None:
    trainer = Trainer(load_recipe(masked, [f"train.micro_batch={micro_batch}"]), tmp_path / "run")
    batch = next(iter(trainer.data.training(0, 1)))
    sizes: list[int] = []
    trainer.towers.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    trainer.computer.backward(trainer.computer.prepare(batch, 0), 0)
    assert sizes == ([6] if micro_batch == 6 else [4, 2])
    trainer.data.close()


@pytest.mark.parametrize("changes", [[], ["objective.supervised={task: chest_xray_findings}"]])
def test_gradients_of_chunks_are_those_of_the_batch_with_weights_and_a_sample_that_takes_no_part(
    masked: dict[str, Any], tmp_path: Path, changes: list[str]
) -> None:
    gradients = []
    for size in (6, 1, 4):
        plan = load_recipe(masked, [*changes, f"train.micro_batch={size}"])
        trainer = Trainer(plan, tmp_path / str(size))
        batch = next(iter(trainer.data.training(0, 1)))
        batch.valid[1] = False
        findings = [{"effusion": n % 2, "pneumonia": n % 3 == 0} if n % 2 else {"effusion": 0} for n in range(6)]
        keys = tuple(json.dumps(["", "", "", {"chest_xray_findings": labels}]) for labels in findings)
        batch = replace(batch, weights=np.array([1, 1, 3, 1, 0.5, 0], np.float32), label_keys=keys)
        loss = trainer.computer.backward(trainer.computer.prepare(batch, 0), 0)
        own = {name: p.grad for name, p in trainer.towers.named_parameters() if p.grad is not None}
        gradients.append({"loss": loss} | own)
        trainer.data.close()
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], atol=1e-6, rtol=1e-4)


def test_the_loss_is_the_mean_over_patches_and_not_over_images(masked: dict[str, Any], tmp_path: Path) -> None:
    """With running cells and flat tubes images count different numbers of patches."""
    trainer = Trainer(load_recipe(masked), tmp_path / "run")
    batch = next(iter(trainer.data.training(0, 1)))
    batch.valid[5] = False
    inputs = trainer.computer.prepare(batch, 0)
    errors_B2 = torch.tensor([[2.0, 1], [30.0, 9], [0, 0], [0, 0], [0, 0], [torch.nan, 7]])
    assert hidden_loss(trainer, inputs, errors_B2).item() == pytest.approx(3.2)
    assert hidden_loss(trainer, inputs, errors_B2 * 0).item() == 0
    trainer.data.close()


def test_other_patches_are_hidden_in_each_step_and_the_same_ones_when_it_is_taken_again(
    masked: dict[str, Any], tmp_path: Path
) -> None:
    trainer = Trainer(load_recipe(masked), tmp_path / "run")
    batch = next(iter(trainer.data.training(0, 1)))
    first, again, later = (trainer.computer.prepare(batch, step).mask_BL for step in (0, 0, 1))
    assert first is not None
    assert again is not None
    assert later is not None
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    trainer.data.close()


def test_what_is_hidden_in_validation_goes_by_the_row_of_the_split(
    masked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(load_recipe(masked, ["train.micro_batch=4"]), tmp_path / "run")
    batch = next(iter(trainer.data.training(0, 1)))
    rows: list[range] = []
    monkeypatch.setattr(trainer.computer, "_fixed_masks", lambda own, _: rows.append(own) or (None, None))
    with torch.no_grad():
        trainer.computer.encode(batch, 10)
    assert rows == [range(10, 16)]
    trainer.data.close()


def test_the_masked_part_counts_by_its_weight(masked: dict[str, Any], tmp_path: Path) -> None:
    losses = []
    for weight in (1, 0.25):
        trainer = Trainer(load_recipe(masked, [f"objective.masked.weight={weight}"]), tmp_path / str(weight))
        batch = next(iter(trainer.data.training(0, 1)))
        losses.append(trainer.computer.backward(trainer.computer.prepare(batch, 0), 0).item())
        trainer.data.close()
    assert losses[1] == pytest.approx(losses[0] / 4)


def test_the_loss_falls(masked: dict[str, Any], tmp_path: Path) -> None:
    run_recipe(masked, ["train.epochs=12", "train.lr=3e-3", "train.ema=0"], out=tmp_path / "run")
    validations = [e["val_loss"] for e in _entries(tmp_path / "run", "val")]
    assert validations[-1] < 0.8 * validations[0]


def test_a_run_of_repeated_samples_that_is_stopped_goes_on_with_the_same_ones(
    masked: dict[str, Any], tmp_path: Path
) -> None:
    changes = ["data.num_repeats=3", "train.epochs=1", "train.max_steps=4"]
    straight = run_recipe(masked, changes, out=tmp_path / "a")
    assert not run_recipe(masked, changes, out=tmp_path / "b", stop=lambda step: step == 2).finished
    resumed = run_recipe(masked, changes, out=tmp_path / "b")
    assert straight.pack is not None
    assert resumed.pack is not None
    assert (straight.pack / "model.safetensors").read_bytes() == (resumed.pack / "model.safetensors").read_bytes()


def test_positions_stay_and_hidden_patches_do_not_reach_the_tower(masked: dict[str, Any], tmp_path: Path) -> None:
    trainer = Trainer(load_recipe(masked), tmp_path / "run")
    before = trainer.towers.clip.visual.trunk.pos_embed.detach().clone()
    batch = next(iter(trainer.data.training(0, 1)))
    inputs = trainer.computer.prepare(batch, 0)
    assert inputs.mask_BL is not None
    assert inputs.mask_BL.sum(1).tolist() == [int(np.ceil(0.75 * 4))] * 6
    trainer.run(lambda step: False)
    assert torch.equal(trainer.towers.clip.visual.trunk.pos_embed, before)


def test_what_is_not_empty_shows_its_share(masked: dict[str, Any], tmp_path: Path) -> None:
    changes = ["objective.masked.foreground=true", "model.size_px=128"]  # 64 patches, of which 16 are visible
    trainer = Trainer(load_recipe(masked, changes), tmp_path / "run")
    batch = next(iter(trainer.data.training(0, 1)))
    noise = np.random.default_rng(0).integers(0, 255, (6, 128, 32, 3), dtype=np.uint8)
    batch.images[:], batch.images[:, :, :32] = 0, noise  # the first two of eight columns
    inputs = trainer.computer.prepare(batch, 0)
    assert inputs.mask_BL is not None
    visible_BRC = ~inputs.mask_BL.unflatten(1, (8, 8))
    assert visible_BRC.flatten(1).sum(1).tolist() == [16] * 6
    assert visible_BRC[:, :, :2].sum((1, 2)).tolist() == [4] * 6  # a quarter of the sixteen that show something
    fixed, _ = trainer.computer._fixed_masks(range(6), torch.from_numpy(batch.images))
    assert fixed is not None
    assert (~fixed.unflatten(1, (8, 8)))[:, :, :2].sum((1, 2)).tolist() == [4] * 6
    trainer.data.close()


@pytest.mark.parametrize("tower", ["test_vit", "test_efficientnet"])
def test_painted_patches_train_any_tower_alone(masked: dict[str, Any], tmp_path: Path, tower: str) -> None:
    changes = [f"model.image_tower={tower}", "objective.masked.decoder=linear", "model.size_px=64"]
    changes += ["objective.masked.ratio=0.5", "train.epochs=9", "train.lr=0.01", "train.ema=0"]
    result = run_recipe(masked, changes, out=tmp_path / "run")
    losses = _losses(tmp_path / "run")
    assert losses[-1] < 0.97 * losses[0]
    assert result.pack is not None
    model = load_model(result.pack)
    assert not model.has_text


def test_the_best_weights_are_those_of_the_lowest_masked_error(masked: dict[str, Any], tmp_path: Path) -> None:
    result = run_recipe(masked, ["train.export=best"], out=tmp_path / "run")
    assert result.pack is not None
    assert (tmp_path / "run" / "best.safetensors").is_file()


def test_words_and_hidden_patches_are_learned_together(recipe: dict[str, Any], tmp_path: Path) -> None:
    changes = ["model.image_tower=test_vit", "objective.masked={decoder: dec128d2, weight: 0.5, ratio: 0.75}"]
    result = run_recipe(recipe, changes, out=tmp_path / "run")
    assert result.pack is not None
    assert load_model(result.pack).has_text
    assert {"val_loss", "masked_error", "image_to_text_r1"} <= set(result.validation)
    assert not any(name.startswith("masked") for name in load_file(result.pack / "model.safetensors"))
    run_recipe(recipe, [*changes, "train.micro_batch=4"], out=tmp_path / "chunks")
    assert _losses(tmp_path / "chunks") == pytest.approx(_losses(tmp_path / "run"), abs=1e-4)


def test_a_run_begins_with_the_tower_of_a_pack_at_another_size(
    masked: dict[str, Any], recipe: dict[str, Any], run: Path, tmp_path: Path
) -> None:
    again = {name: masked[name] for name in ("name", "seed", "data", "objective", "train")}
    again["model"] = {"start": str(run / "pack"), "size_px": 48}
    result = run_recipe(again, out=tmp_path / "alone")
    assert result.pack is not None
    assert load_model(result.pack).preprocess.size_px == 48
    both = run_recipe(recipe, ["model.image_tower=test_vit", "train.max_steps=1"], out=tmp_path / "words")
    again["model"] = {"start": str(both.pack)}
    trainer = Trainer(load_recipe(again), tmp_path / "from words")
    assert both.pack is not None
    shipped = load_file(both.pack / "model.safetensors")
    weights = trainer.towers.state_dict()
    assert torch.equal(weights["visual.trunk.norm.weight"], shipped["visual.trunk.norm.weight"])
    assert trainer.tokenizer is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["model.image_tower=test_efficientnet"], "no plain vision transformer"),
        (["objective.masked.ratio=0.9"], "leaves none of 4 patches"),
        (["model.size_px=40"], "no multiple of its patches of 16"),
        (["model.image_tower=vit_tiny"], "timm cannot build"),
        (["objective.masked.decode_ratio=0.5"], "these are images"),
        (["model.lock_image=true"], "nothing learns"),
        (["model.native_aspect=true"], "hides the cells"),
        (["model.image_weights=imagenet"], "those of tf_efficientnet_lite0, and model.image_tower is 'test_vit'"),
    ],
)
def test_what_cannot_be_hidden_is_refused_before_the_first_step(
    masked: dict[str, Any], tmp_path: Path, changes: list[str], said: str
) -> None:
    with pytest.raises(MedclipError, match=said) as caught:
        run_recipe(masked, changes, out=tmp_path / "run")
    assert caught.value.reason is Reason.RECIPE_INVALID
    assert not (tmp_path / "run" / "log.jsonl").is_file()
