"""What a recipe can ask for beside the plain contrastive loss, each proved on a run of a few steps."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from open_clip.model import CustomTextCLIP
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from medclip.api.models import import_model
from medclip.errors import MedclipError, Reason
from medclip.models.packs.pack import load_model, read_preprocess
from medclip.objectives.contrastive import clip_loss
from medclip.objectives.pairs import Pairs, keys_of
from medclip.settings import Settings
from medclip.shards.writing.build import Form, build_shards
from medclip.training.batches.loader import Batch
from medclip.training.loop import run_recipe
from medclip.training.recipe.schema import load_recipe
from medclip.training.result import read_log
from medclip.training.steps.inputs import Fed
from medclip.training.steps.step import StepComputer
from medclip.training.steps.supervised import learned_from
from medclip.training.trainer import Trainer
from tests.kits.layouts import BPE_TEXT, VIT, add_architecture, hub_folder, plain_state, random_model
from tests.kits.objectives import dense_clip


def _losses(out: Path) -> list[float]:
    return [e["loss"] for e in read_log(out / "log.jsonl") if e["kind"] == "step"]


def _weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "pack" / "model.safetensors")


@pytest.fixture
def vit(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with a ViT in place of the convolutional tower, whose batch statistics would depend on chunks."""
    recipe["model"]["image_tower"] = "test_vit"
    return recipe


def test_small_chunks_give_the_gradients_of_the_whole_batch(vit: dict[str, Any], tmp_path: Path) -> None:
    run_recipe(vit, out=tmp_path / "whole")
    run_recipe(vit, ["train.micro_batch=4"], out=tmp_path / "chunks")  # 6 = 4 + 2
    assert _losses(tmp_path / "chunks") == pytest.approx(_losses(tmp_path / "whole"), abs=1e-4)


def test_the_sigmoid_loss_trains_its_bias_and_ships_it(vit: dict[str, Any], tmp_path: Path) -> None:
    result = run_recipe(vit, ["objective.loss=siglip", "train.lr=0.1"], out=tmp_path / "run")
    weights = _weights(tmp_path / "run")
    assert float(weights["logit_bias"]) != -10
    assert result.pack is not None
    assert load_model(result.pack).encode_text(["a chest x-ray"]).shape == (1, 16)


def _first_step(recipe: dict[str, Any], changes: list[str], out: Path) -> tuple[Trainer, Batch, Tensor, Tensor]:
    """A trainer, its first batch, and the features that its towers give for it in evaluation mode."""
    trainer = Trainer(load_recipe(recipe, changes), out)
    batch = next(iter(trainer.data.training(0, 1)))
    trainer.towers.eval()
    with torch.no_grad():
        image, text, *_ = trainer.computer.encode(batch)
    return trainer, batch, image, text


def test_two_views_are_contrasted_as_mammo_clip_does(vit: dict[str, Any], tmp_path: Path) -> None:
    trainer, batch, image, text = _first_step(vit, ["objective.two_views={images: 0.8, texts: 0.3}"], tmp_path / "a")
    assert (batch.num_views, batch.num_texts, len(batch.keys), len(batch.texts)) == (2, 2, 6, 12)
    assert not np.array_equal(batch.images[:6], batch.images[6:])
    assert batch.texts[:6] != batch.texts[6:]
    pairs = trainer.computer.prepare(batch, 0).pairs
    views, texts = (image[::2], image[1::2]), (text[::2], text[1::2])
    scale = trainer.towers.clip.logit_scale.exp().detach()
    expected = torch.stack([clip_loss(v, t, scale, pairs) for v in views for t in texts]).mean()
    expected = expected + 0.8 * clip_loss(*views, scale, pairs) + 0.3 * clip_loss(*texts, scale, pairs)
    assert float(trainer.computer.backward(trainer.computer.prepare(batch, 0), 0)) == pytest.approx(
        float(expected), abs=1e-5
    )
    for batches in (trainer.data, trainer.val):
        assert batches is not None
        batches.close()


def test_two_views_do_not_depend_on_chunks(vit: dict[str, Any], tmp_path: Path) -> None:
    changes = ["objective.two_views={}", "model.size_px=64", "objective.masked={weight: 0.5}"]
    run_recipe(vit, changes, out=tmp_path / "whole")
    losses = _losses(tmp_path / "whole")
    run_recipe(vit, [*changes, "train.micro_batch=5"], out=tmp_path / "chunks")
    assert _losses(tmp_path / "chunks") == pytest.approx(losses, abs=1e-4)


@pytest.mark.parametrize("relation", ["positive", "ignored", "negative"])
def test_the_relation_of_equal_labels_reaches_the_loss(vit: dict[str, Any], tmp_path: Path, relation: str) -> None:
    others = ["objective.same_text=negative", "objective.same_study=negative", f"objective.same_label={relation}"]
    trainer, batch, image, text = _first_step(vit, others, tmp_path / relation)
    keys = keys_of(batch.label_keys)
    assert 1 < len(set(batch.label_keys)) < 6
    pairs = {"positive": Pairs(positive_BK=keys), "ignored": Pairs(ignored_BK=keys), "negative": Pairs()}[relation]
    scale = trainer.towers.clip.logit_scale.exp().detach()
    expected = dense_clip(image.double(), text.double(), scale.double(), pairs)
    assert float(trainer.computer.backward(trainer.computer.prepare(batch, 0), 0)) == pytest.approx(
        float(expected), abs=1e-5
    )
    trainer.data.close()


def _elsewhere(tmp_path: Path) -> str:
    """Shards of a second source, of which nothing but pneumonia is known."""
    row = {"split": "train", "modality": "xray", "view": "AP", "source": "elsewhere", "license": "CC0"}
    rows = [
        {"file": f"{i}.png", "patient": f"other {i}", "label:chest_xray_findings:pneumonia": "1", **row}
        for i in range(6)
    ]
    form, images = Form(max_side=64, key=b"k" * 32), _six_images(tmp_path)
    out = tmp_path / "other"
    return str(build_shards(pd.DataFrame(rows), out, form, images=images, settings=Settings(workers=1)).folder)


def _sources(trainer: Trainer, batch: Batch) -> list[str]:
    keys = [trainer.reader.key(i) for i in range(len(trainer.reader))]
    return [trainer.reader.row(keys.index(key))["source"] for key in batch.keys]


def test_films_of_another_source_are_no_negatives_of_a_step_that_ignores_them(
    vit: dict[str, Any], shards: Path, tmp_path: Path
) -> None:
    """The loss of a batch of two sources is over pairs of one source each; with them as negatives it is another."""
    vit["data"]["shards"] = [str(shards), _elsewhere(tmp_path)]
    vit["objective"] = dict.fromkeys(("same_text", "same_study", "same_label"), "negative")
    changes = ["train.batch_size=12", "objective.other_source=ignored"]
    trainer, batch, image, text = _first_step(vit, changes, tmp_path / "a")
    sources = _sources(trainer, batch)
    assert len(set(sources)) == 2
    scale = trainer.towers.clip.logit_scale.exp().detach().double()
    within, over = (
        float(dense_clip(image.double(), text.double(), scale, Pairs(sources_B2=keys)))
        for keys in (keys_of(["xray"] * 12, sources), None)
    )
    assert over > within + 0.1, "there are fewer negatives within a source"
    assert float(trainer.computer.backward(trainer.computer.prepare(batch, 0), 0)) == pytest.approx(within, abs=1e-5)
    trainer.data.close()


def test_a_source_may_count_more_than_another(vit: dict[str, Any], shards: Path, tmp_path: Path) -> None:
    vit["data"]["shards"] = [str(shards), _elsewhere(tmp_path)]
    weights = {"elsewhere": 0.25}
    vit["objective"] = {"source_weights": weights}
    trainer, batch, image, text = _first_step(vit, ["train.batch_size=12"], tmp_path / "a")
    sources = _sources(trainer, batch)
    assert set(sources) == {"elsewhere", "made here"}
    assert batch.weights is not None
    assert batch.weights.tolist() == [weights.get(s, 1.0) for s in sources]
    scale = trainer.towers.clip.logit_scale.exp().detach()
    pairs = trainer.computer.prepare(batch, 0).pairs
    assert pairs.weights_B is not None
    assert pairs.weights_B.tolist() == batch.weights.tolist()
    expected = dense_clip(image.double(), text.double(), scale.double(), pairs)
    assert float(trainer.computer.backward(trainer.computer.prepare(batch, 0), 0)) == pytest.approx(
        float(expected), abs=1e-5
    )
    trainer.data.close()
    vit["objective"] = {"source_weights": {"elsewere": 2}}
    with pytest.raises(MedclipError, match="no source 'elsewere'") as caught:
        run_recipe(vit, out=tmp_path / "b")
    assert caught.value.reason is Reason.RECIPE_INVALID


def test_a_head_learns_from_the_sources_that_it_names_alone(vit: dict[str, Any], shards: Path, tmp_path: Path) -> None:
    vit["data"]["shards"] = [str(shards), _elsewhere(tmp_path)]
    head = "objective.supervised={task: chest_xray_findings, classes: [pneumonia], sources: [made here]}"
    trainer, batch, *_ = _first_step(vit, [head, "train.batch_size=12"], tmp_path / "a")
    sources = np.array(_sources(trainer, batch))
    assert set(sources) == {"elsewhere", "made here"}
    target_B = trainer.computer.prepare(batch, 0).targets["chest_xray_findings"][:, 0].numpy()
    np.testing.assert_array_equal(np.isnan(target_B), sources == "elsewhere")
    assert set(target_B[sources == "made here"]) == {0.0, 1.0}
    unread = replace(batch, valid=np.zeros(len(batch.keys), bool))
    assert learned_from(("made here",), unread) == [""] * len(batch.keys)
    assert learned_from((), batch) == list(batch.label_keys)
    trainer.data.close()
    # What is validated is the same: with nothing to learn from here, nothing is said of the head.
    vit["objective"] = {"supervised": {"task": "chest_xray_findings", "sources": ["elsewhere"]}}
    run_recipe(vit, ["train.epochs=1"], out=tmp_path / "b")
    (validated,) = [e for e in read_log(tmp_path / "b" / "log.jsonl") if e["kind"] == "val"]
    assert validated["supervised_loss"] == 0
    assert "auroc" not in validated
    vit["objective"]["supervised"]["sources"] = ["made hear"]
    with pytest.raises(MedclipError, match=r"no source 'made hear'.*made here") as caught:
        run_recipe(vit, out=tmp_path / "c")
    assert caught.value.reason is Reason.RECIPE_INVALID


def _six_images(folder: Path) -> Path:
    for i in range(6):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (40, 40), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize("tower", ["test_vit", "test_efficientnet"])
def test_hidden_pixels_are_learned_beside_the_words(recipe: dict[str, Any], tmp_path: Path, tower: str) -> None:
    changes = [f"model.image_tower={tower}", "model.size_px=64", "objective.masked={weight: 1, ratio: 0.5}"]
    changes += ["objective.contrastive=1e-6", "train.epochs=8", "train.lr=0.01", "train.ema=0"]
    run_recipe(recipe, changes, out=tmp_path / "run")
    losses = _losses(tmp_path / "run")
    assert losses[-1] < 0.97 * losses[0]
    assert not any(name.startswith("masked") for name in _weights(tmp_path / "run"))
    stopped = tmp_path / "stopped"
    run_recipe(recipe, changes, out=stopped, stop=lambda step: step == 5)
    run_recipe(recipe, changes, out=stopped)
    assert _losses(stopped) == losses


def test_chunks_and_hidden_pixels_go_together(vit: dict[str, Any], tmp_path: Path) -> None:
    changes = ["model.size_px=64", "objective.masked={weight: 0.5}"]
    run_recipe(vit, changes, out=tmp_path / "whole")
    run_recipe(vit, [*changes, "train.micro_batch=3"], out=tmp_path / "chunks")
    assert _losses(tmp_path / "chunks") == pytest.approx(_losses(tmp_path / "whole"), abs=1e-4)


@pytest.mark.parametrize(("key", "tower"), [("lock_image", "visual."), ("lock_text", "text.")])
def test_a_locked_tower_stays_bit_by_bit(vit: dict[str, Any], tmp_path: Path, key: str, tower: str) -> None:
    trainer = Trainer(load_recipe(vit, [f"model.{key}=true"]), tmp_path)
    before = {k: v.clone() for k, v in trainer.towers.state_dict().items()}
    trainer.run(lambda step: False)
    after = trainer.towers.state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed
    assert not any(k.startswith(tower) for k in changed)


def test_the_last_group_of_a_locked_tower_may_learn(vit: dict[str, Any], tmp_path: Path) -> None:
    changes = ["model.lock_image=true", "model.unlocked_image_groups=1"]
    trainer = Trainer(load_recipe(vit, changes), tmp_path)
    learning = [n for n, p in trainer.towers.named_parameters() if n.startswith("visual.") and p.requires_grad]
    assert learning == ["visual.head.proj.weight"]


def test_a_run_begins_with_a_pack_and_another_size(recipe: dict[str, Any], tmp_path: Path) -> None:
    first = run_recipe(recipe, ["train.max_steps=1"], out=tmp_path / "first")
    again = {k: recipe[k] for k in ("name", "seed", "data", "train")} | {"model": {"start": str(first.pack)}}
    trainer = Trainer(load_recipe(again), tmp_path / "again")
    assert trainer.size_px == 32
    shipped = load_file(tmp_path / "first" / "pack" / "model.safetensors")
    assert all(torch.equal(v.float(), shipped[k].float()) for k, v in trainer.towers.state_dict().items())
    second = run_recipe(again, ["train.max_steps=2"], out=tmp_path / "second")
    assert second.pack is not None
    assert load_model(second.pack).tokenizer.vocab_size == load_model(str(first.pack)).tokenizer.vocab_size


@pytest.fixture(scope="module")
def architecture(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A name that open_clip knows, of a model with its tokenizer and small towers."""
    config = {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": BPE_TEXT}
    return add_architecture(tmp_path_factory.mktemp("architectures"), "tiny-for-training", config)


def test_a_run_begins_with_an_open_clip_architecture(recipe: dict[str, Any], tmp_path: Path, architecture: str) -> None:
    again = {k: recipe[k] for k in ("name", "seed", "data", "train")}
    again |= {"model": {"start": architecture, "size_px": 64}}
    result = run_recipe(again, ["train.max_steps=1", "train.ema=0"], out=tmp_path / "run")
    assert result.pack is not None
    model = load_model(result.pack)
    assert (model.tokenizer.context_length, model.preprocess.size_px) == (77, 64)
    assert isinstance(model.clip, CustomTextCLIP)
    settings = json.loads((result.pack / "open_clip_config.json").read_text())
    assert settings["preprocess_cfg"]["mean"] == pytest.approx([0.48145466, 0.4578275, 0.40821073])


def test_how_images_are_treated_travels_from_an_imported_pack_into_that_of_a_run(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    config = {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": BPE_TEXT}
    source = hub_folder(tmp_path / "m", config, plain_state(random_model(config)), "open_clip_model.safetensors")
    pack = import_model(source, tmp_path / "imported", resize="shortest:36", interpolation="bilinear", crop="none")
    again = {k: recipe[k] for k in ("name", "seed", "data", "train")} | {"model": {"start": str(pack)}}
    result = run_recipe(again, ["train.max_steps=1", "train.ema=0"], out=tmp_path / "run")
    assert result.pack is not None
    before, after = read_preprocess(pack), read_preprocess(result.pack)
    assert (before.crop, after.crop) == ("none", "modality")  # shards hold what the adapters cropped
    assert after == replace(before, crop="modality", adapters=after.adapters)
    assert after.adapters


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_a_run_that_began_with_a_model_goes_on_exactly(
    recipe: dict[str, Any], tmp_path: Path, architecture: str, loss: str
) -> None:
    again = {k: recipe[k] for k in ("name", "seed", "data", "train")}
    again |= {"model": {"start": architecture, "size_px": 64}, "objective": {"loss": loss}}
    changes = ["train.max_steps=3", "train.ema=0"]
    run_recipe(again, changes, out=tmp_path / "straight")
    run_recipe(again, changes, out=tmp_path / "stopped", stop=lambda step: step == 2)
    run_recipe(again, changes, out=tmp_path / "stopped")
    assert _losses(tmp_path / "stopped") == _losses(tmp_path / "straight")


def test_a_skipped_step_changes_neither_weights_nor_moments_averages_or_statistics(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(load_recipe(recipe, ["model.freeze_bn=false", "train.ema=0.5"]), tmp_path)
    before = {k: v.clone() for k, v in trainer.towers.state_dict().items()}
    averaged = {k: v.clone() for k, v in trainer.ema.state.items()}
    loss = StepComputer._loss
    monkeypatch.setattr(StepComputer, "_loss", lambda *a: loss(*a) * float("nan"))
    before |= {k: v.clone() for k, v in trainer._tensors().items() if k.startswith("optim.")}
    batch = next(iter(trainer.data.training(0, 1)))
    trainer._step(Fed(trainer.computer.prepare(batch, 0)), False)
    after = trainer.towers.state_dict() | {k: v for k, v in trainer._tensors().items() if k.startswith("optim.")}
    assert after.keys() == before.keys()
    assert all(torch.equal(v, before[k]) for k, v in after.items())
    assert all(torch.equal(v, averaged[k]) for k, v in trainer.ema.state.items())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["model.lock_image=true", "model.lock_text=true"], "nothing learns"),
        (["model.freeze_bn=false", "train.micro_batch=2"], "a part of the batch"),
        (["model.image_tower=test_vit", "model.freeze_blocks=1"], "no EfficientNet"),
        (["data.val_split=null", "train.export=best"], "need a data.val_split"),
        (["model.architecture=ViT-B-32"], "architecture does nothing"),
        (["model.unlocked_text_layers=1"], "unlocked_text_layers does nothing"),
        (["train.cooldown_steps=3"], "cooldown_steps does nothing"),
        (["model.logit_bias=-3"], "logit_bias is for"),
        (["train.betas=[2, 3]"], "betas"),
        (["train.compile=true", "model.freeze_blocks=1"], "compile"),
    ],
)
def test_what_does_not_go_together_is_refused_before_the_first_step(
    recipe: dict[str, Any], tmp_path: Path, changes: list[str], said: str
) -> None:
    with pytest.raises(MedclipError, match=said) as caught:
        run_recipe(recipe, changes, out=tmp_path / "run")
    assert caught.value.reason is Reason.RECIPE_INVALID
    assert not (tmp_path / "run" / "log.jsonl").is_file()


def test_a_sample_without_a_readable_record_costs_itself_alone(
    recipe: dict[str, Any], shards: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(shards, broken)
    tar = broken / "train-000000.tar"
    data = tar.read_bytes()
    tar.write_bytes(data.replace(b'{"meta"', b'{!meta"', 1))
    run_recipe(recipe, [f"data.shards={broken}"], out=tmp_path / "run")
    counted = [e for e in read_log(tmp_path / "run" / "log.jsonl") if e["kind"] == "bad"]
    assert counted[-1]["corrupt"] in (1, 2)


def test_activations_may_be_computed_again(vit: dict[str, Any], tmp_path: Path) -> None:
    run_recipe(vit, out=tmp_path / "kept")
    run_recipe(vit, ["model.grad_checkpointing=true"], out=tmp_path / "again")
    assert _losses(tmp_path / "again") == pytest.approx(_losses(tmp_path / "kept"), abs=1e-5)


def test_tasks_are_measured_in_words_and_written_for_tensorboard(recipe: dict[str, Any], tmp_path: Path) -> None:
    changes = ["train.zero_shot=[chest_xray_findings, brain_mri_tumour]", "train.tensorboard=true"]
    result = run_recipe(recipe, changes, out=tmp_path / "run")
    assert 0 <= result.validation["zero_shot.chest_xray_findings"] <= 1
    assert "zero_shot.brain_mri_tumour" not in result.validation  # no such labels here
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    said = [e.value for e in events.Scalars("step/loss")]
    np.testing.assert_allclose(said, _losses(tmp_path / "run"), rtol=1e-6)
    assert "val/zero_shot.chest_xray_findings" in events.Tags()["scalars"]


def test_damaged_samples_are_left_out_counted_and_too_many_stop_the_run(
    recipe: dict[str, Any], shards: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(shards, broken)
    tar = broken / "train-000000.tar"
    data = bytearray(tar.read_bytes())
    at = data.index(b"IDAT")
    data[at + 4 : at + 24] = b"\0" * 20
    tar.write_bytes(data)
    changes = [f"data.shards={broken}"]
    run_recipe(recipe, changes, out=tmp_path / "run")
    counted = [e for e in read_log(tmp_path / "run" / "log.jsonl") if e["kind"] == "bad"]
    assert counted
    assert sum(v for k, v in counted[-1].items() if k not in ("kind", "step")) in (1, 2)
    with pytest.raises(MedclipError, match="samples could not be used") as caught:
        run_recipe(recipe, [*changes, "data.max_bad_share=0"], out=tmp_path / "strict")
    assert caught.value.reason is Reason.TOO_MANY_BAD
    with pytest.raises(MedclipError, match=r"train-000000\.tar") as caught:
        run_recipe(recipe, [*changes, "data.verify=full"], out=tmp_path / "verified")
    assert caught.value.reason is Reason.CORRUPT


def test_a_damaged_checkpoint_is_passed_over_and_noted(recipe: dict[str, Any], tmp_path: Path) -> None:
    straight = run_recipe(recipe, out=tmp_path / "straight")
    recipe["train"]["checkpoint_every"] = 2
    out = tmp_path / "run"
    run_recipe(recipe, out=out, stop=lambda step: step == 4)
    (file,) = (out / "checkpoints" / "step-0000004").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-10])
    resumed = run_recipe(recipe, out=out)
    assert _losses(out) == _losses(tmp_path / "straight")
    assert any("passed over" in e.get("note", "") for e in read_log(out / "log.jsonl"))
    assert straight.pack is not None
    assert resumed.pack is not None
    assert (straight.pack / "model.safetensors").read_bytes() == (resumed.pack / "model.safetensors").read_bytes()
    run_recipe(recipe, out=tmp_path / "lost", stop=lambda step: step == 2)
    (file,) = (tmp_path / "lost" / "checkpoints" / "step-0000002").glob("*.safetensors")
    file.unlink()
    with pytest.raises(MedclipError, match="none of the 1 checkpoints"):
        run_recipe(recipe, out=tmp_path / "lost")


def test_towers_can_be_compiled(vit: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    run_recipe(vit, out=tmp_path / "plain")
    run_recipe(vit, ["train.compile=true"], out=tmp_path / "compiled")
    assert compiled == ["Block"] * 6 + ["ResidualAttentionBlock"]
    assert _losses(tmp_path / "compiled") == pytest.approx(_losses(tmp_path / "plain"), abs=1e-4)
