"""A lens in front of a pack: nothing of the pack changes, and ECGs and volumes come into its space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from medclip.api.models import export_model
from medclip.errors import MedclipError
from medclip.models.packs.pack import load_model, verify_pack
from medclip.models.towers.lens_tower import LensTower
from medclip.training.loop import run_recipe
from medclip.training.recipe.schema import load_recipe
from medclip.training.result import read_log
from medclip.training.trainer import Trainer
from tests.kits.lens import lens_of, vit_pack
from tests.kits.signal_shards import CAPTIONS, signal_shards
from tests.kits.volume_models import volume_shards

ECG = {"sampling_hz": 100, "seconds": 4}
CT = {"num_frames": 8, "tubelet": 2, "spacing_mm": [2, 2, 2], "window": [-200, 300]}


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vit_pack(tmp_path_factory.mktemp("vit") / "vit")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return signal_shards(tmp_path_factory.mktemp("signals"))


def _recipe(shards: Path, model: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": "lens",
        "seed": 3,
        "data": {"shards": str(shards), "workers": 1},
        "model": model,
        "train": {"epochs": 1, "batch_size": 4, "warmup_steps": 1, "log_every": 1, "threads": 1, "lr": 1e-2},
        **more,
    }


@pytest.fixture(scope="module")
def run(pack: Path, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    run_recipe(_recipe(shards, {"signal": ECG, "lens": lens_of(pack)}), out=out)
    return out


def test_only_the_lens_learns_and_texts_stay_where_the_pack_has_them(pack: Path, run: Path) -> None:
    before, after = load_model(pack), load_model(run / "pack")
    np.testing.assert_array_equal(after.encode_text(CAPTIONS), before.encode_text(CAPTIONS))
    assert after.logit_scale == pytest.approx(before.logit_scale)
    weights = load_file(run / "pack" / "model.safetensors")
    for name, value in load_file(pack / "model.safetensors").items():
        name = name.replace("visual.", "visual.visual.", 1) if name.startswith("visual.") else name
        assert torch.equal(weights[name], value), name


def test_the_pack_takes_ecgs_and_inherits_what_its_tower_was_trained_on(run: Path, shards: Path) -> None:
    assert verify_pack(run / "pack").has_text
    model = load_model(run / "pack")
    assert model.preprocess.signal is not None
    assert model.preprocess.image_shape == (12, 400)
    assert isinstance(model.clip.visual, LensTower)
    assert model.clip.visual.input_tokens(torch.ones(1, 1, 12, 400))[0].shape[1] == 400 // 5
    assert "image_tower_of" in model.card.created_from
    files = sorted((shards.parent / "files").glob("*.hea"))[:2]
    vectors = model.embed_images(files, modality="ecg")
    assert vectors.shape == (2, 16)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-5
    with pytest.raises(MedclipError, match="this model takes ECGs; neither"):
        export_model(run / "pack", run / "exported")


def test_a_lens_stands_in_front_of_a_tower_without_words_under_a_classifier(shards: Path, tmp_path: Path) -> None:
    trunk = vit_pack(tmp_path / "alone", words=False)
    objective = {"contrastive": 0, "supervised": {"task": "ecg_superclass", "classes": ["norm", "hyp"]}}
    model = {"signal": ECG, "lens": lens_of(trunk, latents=9, unlock_blocks=1)}
    trainer = Trainer(load_recipe(_recipe(shards, model, objective=objective)), tmp_path / "run")
    trainer.data.close()
    learned = {name for name, p in trainer.towers.named_parameters() if p.requires_grad}
    assert any(name.startswith("visual.visual.trunk.blocks.0.") for name in learned)
    assert not any(name.startswith("visual.visual.trunk.blocks.1.") for name in learned)
    assert "visual.latent_positions" in learned
    assert "visual.visual.trunk.cls_token" not in learned
    model = {"signal": ECG, "lens": lens_of(trunk, unlock_cls=True)}
    trainer = Trainer(load_recipe(_recipe(shards, model, objective=objective)), tmp_path / "unlocked")
    trainer.data.close()
    learned = {name for name, p in trainer.towers.named_parameters() if p.requires_grad}
    assert {name for name in learned if name.startswith("visual.visual.")} == {"visual.visual.trunk.cls_token"}


def test_volumes_are_held_against_words_and_against_their_middle_slice(pack: Path, tmp_path: Path) -> None:
    shards, losses = volume_shards(tmp_path, num_train=4), {}
    for anchor in (0.0, 1.0):
        out = tmp_path / f"run{anchor:g}"
        model = {"volume": CT, "lens": lens_of(pack, image_anchor=anchor)}
        run_recipe(_recipe(shards, model, augment={"rotate_deg": 0}), out=out)
        losses[anchor] = [e["loss"] for e in read_log(out / "log.jsonl") if e["kind"] == "step"]
    assert losses[1.0][0] > losses[0.0][0] + 0.01
    after = load_model(tmp_path / "run1" / "pack")
    assert after.preprocess.volume is not None
    np.testing.assert_array_equal(after.encode_text(CAPTIONS), load_model(pack).encode_text(CAPTIONS))


def test_tokens_behind_the_lens_are_held_against_those_of_the_middle_slice(pack: Path, tmp_path: Path) -> None:
    shards, losses = volume_shards(tmp_path, num_train=4), {}
    for lens in ({}, {"token_anchor": 1.0}, {"token_anchor": 1.0, "anchor_form": "cosine"}):
        out = tmp_path / f"run{len(losses)}"
        model = {"volume": CT, "lens": lens_of(pack, **lens)}
        run_recipe(_recipe(shards, model, augment={"rotate_deg": 0}), out=out)
        losses[lens.get("anchor_form", str(len(lens)))] = [
            e["loss"] for e in read_log(out / "log.jsonl") if e["kind"] == "step"
        ]
    assert losses["1"][0] > losses["0"][0] + 0.01  # a mean square
    assert abs(losses["cosine"][0] - losses["0"][0]) < 1  # a cosine
    assert losses["cosine"][0] != losses["0"][0]
    model = {"volume": CT, "lens": lens_of(pack, latents=5, token_anchor=1)}
    recipe = load_recipe(_recipe(shards, model, augment={"rotate_deg": 0}))
    with pytest.raises(MedclipError, match="compares tokens one by one"):
        Trainer(recipe, tmp_path / "other")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"lens": {"trunk": "p"}}, "model.signal or model.volume"),
        ({"signal": ECG | {"tower": "resnet1d"}, "lens": {"trunk": "p"}}, "go together"),
        ({"signal": ECG | {"tower": "lens"}}, "go together"),
        ({"signal": ECG, "lens": {"trunk": "p", "image_anchor": 1}}, "image_anchor"),
        ({"signal": ECG, "lens": {"trunk": "p", "token_anchor": 1}}, "token_anchor"),
        ({"signal": ECG, "lens": {"trunk": "p"}, "embed_dim": 64}, "embed_dim does not go with lens"),
        ({"signal": ECG, "lens": {"trunk": "p"}, "start": "p"}, "start"),
    ],
)
def test_what_does_not_go_with_a_lens_is_refused(model: dict[str, Any], message: str) -> None:
    with pytest.raises(MedclipError, match=message):
        load_recipe(_recipe(Path("s"), model))


def test_a_pack_that_is_no_tower_of_square_images_is_refused(run: Path, shards: Path, tmp_path: Path) -> None:
    recipe = _recipe(shards, {"signal": ECG, "lens": lens_of(run / "pack")})
    with pytest.raises(MedclipError, match="does not take square images"):
        Trainer(load_recipe(recipe), tmp_path / "run")
