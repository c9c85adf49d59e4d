"""Training on volumes: tubes hidden, running cells guessed; the clips are those that a pack is scored with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import medclip
from medclip.adapters.base import source_of
from medclip.adapters.registry import read_unit
from medclip.errors import MedclipError, Reason
from medclip.models.inputs.read_pixels import pixels_of
from medclip.models.inputs.volume_input import VolumeInput
from medclip.models.packs.pack import load_model, verify_pack
from medclip.sample import Modality
from medclip.settings import Settings
from medclip.training.loop import run_recipe
from medclip.training.recipe.schema import load_recipe
from medclip.training.result import read_log
from medclip.training.trainer import Trainer
from tests.kits.training import hidden_loss, make_shards, masked_recipe
from tests.kits.volume_models import SIZE_PX, loop_shards, volume_recipe, volume_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return volume_shards(tmp_path_factory.mktemp("volumes"))


@pytest.fixture
def recipe(shards: Path) -> dict[str, Any]:
    return volume_recipe(shards)


@pytest.fixture(scope="module")
def run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    run_recipe(volume_recipe(shards), out=out)
    return out


def _losses(out: Path) -> list[float]:
    return [e["loss"] for e in read_log(out / "log.jsonl") if e["kind"] == "step"]


def test_a_run_ends_in_a_pack_that_says_how_it_takes_volumes(run: Path) -> None:
    assert not verify_pack(run / "pack").has_text
    model = load_model(run / "pack")
    taken = model.preprocess.volume
    assert isinstance(taken, VolumeInput)
    assert (taken.plane, taken.unit, taken.spacing_mm, taken.window) == ("axial", "HU", (2, 2, 2), (-200, 300))
    config = json.loads((run / "pack" / "open_clip_config.json").read_text())
    assert config["model_cfg"]["vision_cfg"]["tubelet"] == {"num_frames": 8, "tubelet": 2, "channels": 1}
    assert list(model.preprocess.adapters) == ["ct:volume"]
    assert model.encode_image(np.zeros((1, 8, SIZE_PX, SIZE_PX, 1), np.uint8)).shape == (1, model.dim)


def test_the_loss_falls(recipe: dict[str, Any], tmp_path: Path) -> None:
    run_recipe(recipe, ["train.epochs=12"], out=tmp_path / "run")
    validations = [e["val_loss"] for e in read_log(tmp_path / "run" / "log.jsonl") if e["kind"] == "val"]
    assert validations[-1] < 0.9 * validations[0]


def test_tubes_are_hidden_at_all_times_and_half_of_them_are_guessed(recipe: dict[str, Any], tmp_path: Path) -> None:
    trainer = Trainer(load_recipe(recipe), tmp_path / "run")
    batch = next(iter(trainer.data.training(0, 1)))
    inputs = trainer.computer.prepare(batch, 0)
    trainer.data.close()
    assert batch.images.shape == (3, 8, SIZE_PX, SIZE_PX, 1)
    assert inputs.mask_BL is not None
    assert inputs.decoded_BL is not None
    tubes_BTP = inputs.mask_BL.view(3, 4, 4)  # 8 slices by 2; 32 px by 16
    assert (tubes_BTP == tubes_BTP[:, :1]).all()
    assert tubes_BTP.sum(2).unique().tolist() == [3]  # 0.8 of 4 places, rounded down
    assert inputs.decoded_BL.sum(1).tolist() == [8, 8, 8]


def test_training_and_scoring_are_shown_the_same_pixels(shards: Path, run: Path, tmp_path: Path) -> None:
    """A file through its adapter and the pack gives, bit for bit, the clip that validation made of the shard."""
    trainer = Trainer(load_recipe(volume_recipe(shards)), tmp_path / "run")
    assert trainer.val is not None
    batch = next(iter(trainer.val.validation(2)))
    preprocess = load_model(run / "pack").preprocess
    clips = {}
    for path in sorted((shards.parent / "files").glob("[67].nii")):
        sample = read_unit(source_of(path, Settings()), Modality.CT, preprocess.reading(Settings()))
        pixels = pixels_of(sample, preprocess)
        clips[np.asarray(pixels[len(pixels) // 2]).tobytes()] = path
    assert {image.tobytes() for image in batch.images} == set(clips)
    assert batch.images.any()
    trainer.data.close()


def test_a_volume_of_another_plane_is_a_bad_sample_with_its_reason(recipe: dict[str, Any], tmp_path: Path) -> None:
    out, other = tmp_path / "run", {"plane": "coronal"}
    recipe["model"]["volume"] = {**recipe["model"]["volume"], **other}
    with pytest.raises(MedclipError, match=r"other_orientation.*Compare model\.volume of the recipe") as caught:
        run_recipe(recipe, ["data.max_bad_share=0"], out=out)
    assert caught.value.reason is Reason.TOO_MANY_BAD


def test_shards_of_images_and_models_of_volumes_do_not_go_together(
    recipe: dict[str, Any], shards: Path, tmp_path: Path
) -> None:
    images = make_shards(tmp_path / "images")
    for plan, said in (
        (recipe | {"data": {"shards": str(images)}}, "hold images, and the model of the recipe takes volumes"),
        (masked_recipe(shards), "hold volumes or loops, and the model of the recipe takes images"),
    ):
        with pytest.raises(MedclipError, match=said) as caught:
            run_recipe(plan, out=tmp_path / "run")
        assert caught.value.reason is Reason.RECIPE_INVALID


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["model.volume.num_frames=9"], "no multiple of tubelet"),
        (["model.volume.spacing_mm=[2, 2]"], "3 finite numbers"),
        (["objective.masked.decoder=linear", "objective.masked.decode_ratio=null"], "Choose decoder: video"),
        (["model.size_px=48"], "running cells"),
        (["model.image_tower=test_efficientnet"], "cannot take clips"),
        (["model.native_aspect=true"], "does not go with native_aspect"),
        (["objective.contrastive=1"], "without words"),
        (["augment.rotate_deg=7"], "not done to volumes"),
    ],
)
def test_what_does_not_go_with_volumes_is_refused_before_the_first_step(
    recipe: dict[str, Any], tmp_path: Path, changes: list[str], said: str
) -> None:
    with pytest.raises(MedclipError) as caught:
        run_recipe(recipe, changes, out=tmp_path / "run")
    assert said in f"{caught.value}"
    assert caught.value.reason is Reason.RECIPE_INVALID


def test_the_word_masked_stands_for_tubes_where_the_model_takes_volumes(recipe: dict[str, Any]) -> None:
    plan = load_recipe(recipe)
    masked = plan.objective.masked
    assert masked is not None
    assert (masked.decoder, masked.ratio, masked.decode_ratio, masked.normalise) == ("video", 0.8, 0.5, True)
    assert (plan.augment.flip, plan.augment.stretch) == (0, 1)
    assert load_recipe(plan).digest() == plan.digest()
    recipe["model"]["volume"] = {"kind": "cine", "num_frames": 8}
    cine = load_recipe(recipe).objective.masked
    assert cine is not None
    assert cine.ratio == 0.9


def test_the_error_of_a_batch_is_that_of_its_tubes_and_air_counts_nothing(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    """A clip counts with its tubes that are not of one value: one of nothing but air counts nothing."""
    trainer = Trainer(load_recipe(recipe), tmp_path / "run")
    batch = next(iter(trainer.data.training(0, 1)))
    inputs = trainer.computer.prepare(batch, 0)
    trainer.data.close()
    noise = torch.randint(0, 256, inputs.images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    noise[1, :, : SIZE_PX // 2] = 0
    noise[2] = 0
    masked, clip = trainer.towers.masked, trainer.towers.clip
    assert masked is not None
    every = torch.ones(3, masked.num_patches, dtype=torch.bool)
    hidden = every.view(3, 4, 4).clone()
    hidden[:, :, 3] = False  # of four places, one in the lower half is seen
    images = trainer.computer._normalised(noise)
    errors_B2 = masked(clip, images, hidden.flatten(1), None, every).detach()
    assert errors_B2[:, 1].tolist() == [12, 4, 0]
    assert errors_B2[2, 0] == 0
    loss = hidden_loss(trainer, inputs, errors_B2)
    assert float(loss) == pytest.approx(float(errors_B2[:2, 0].sum() / 16))


def test_loops_are_trained_on_by_time_and_measured_on_their_test_split(tmp_path: Path) -> None:
    recipe = volume_recipe(loop_shards(tmp_path))
    recipe["model"]["volume"] = {"kind": "cine", "num_frames": 8, "frame_ms": 40, "channels": 3}
    result = medclip.pretrain(recipe, out=tmp_path / "run")
    assert [row["metric"] for row in result.test] == ["masked_error", "masked_gain"]
    assert result.pack is not None
    model = medclip.models.load(result.pack)
    assert "Loops are taken as clips of 8 x 32 x 32, frames 40 ms apart" in model.preprocess.describe()
    assert list(model.preprocess.adapters) == ["ultrasound:cine"]
    vectors = model.embed_images([tmp_path / "files" / "8.dcm"], settings=Settings(workers=1))
    assert vectors.shape == (1, model.dim)


def test_a_pack_of_volumes_or_of_images_starts_a_run_on_volumes(
    recipe: dict[str, Any], run: Path, tmp_path: Path
) -> None:
    taken = recipe["model"]["volume"]
    model = {"image_weights": str(run / "pack"), "volume": {**taken, "num_frames": 12}}
    assert run_recipe(recipe | {"model": model}, ["train.max_steps=1"], out=tmp_path / "longer").pack is not None
    goes_on = {"start": str(run / "pack")}
    assert run_recipe(recipe | {"model": goes_on}, ["train.max_steps=1"], out=tmp_path / "on").pack is not None
    images = run_recipe(masked_recipe(make_shards(tmp_path / "images")), ["train.max_steps=1"], out=tmp_path / "2d")
    inflated = {"image_weights": str(images.pack), "size_px": SIZE_PX, "volume": taken}
    assert run_recipe(recipe | {"model": inflated}, ["train.max_steps=1"], out=tmp_path / "3d").pack is not None
    other = {"image_weights": str(run / "pack"), "volume": {**taken, "plane": "coronal"}}
    with pytest.raises(MedclipError, match=r"trained on volume axial HU, and .* says volume coronal HU"):
        run_recipe(recipe | {"model": other}, out=tmp_path / "other")


@pytest.mark.slow
def test_a_pack_of_volumes_is_fine_tuned_and_scores_volumes(tmp_path: Path) -> None:
    shards = volume_shards(tmp_path, 6, 6)
    pack = run_recipe(volume_recipe(shards), ["train.max_steps=1"], out=tmp_path / "run").pack
    splits = ["train", "train", "val", "val", "test", "test"] * 2
    files = [f"{n}.nii" for n in range(12)]
    table = pd.DataFrame({"file": files, "patient": files, "modality": "ct", "rod": list("ab") * 6, "split": splits})
    assert pack is not None
    tuned = medclip.finetune(
        table,
        "rod",
        model=pack,
        images=tmp_path / "files",
        out=tmp_path / "tuned",
        patient="patient",
        overrides={"train.epochs": 1},
        settings=Settings(workers=1),
    )
    assert tuned.images == {"train": 4, "val": 4, "test": 4}
    run = medclip.score(tmp_path / "files", model=tmp_path / "tuned" / "pack", out=tmp_path / "scores", modality="ct")
    assert run.counts["scored"] == 12
