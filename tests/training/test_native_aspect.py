"""Training on images at their own aspect ratio: as on squares where images are squares, resumable, and into a pack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medclip.errors import MedclipError, Reason
from medclip.imaging.geometry import TokenBudget, letterbox
from medclip.models.inputs.preprocess import Preprocess
from medclip.models.packs.manifest import read_config
from medclip.models.packs.pack import load_model, verify_pack
from medclip.sample import View
from medclip.settings import Settings
from medclip.shards.reading.samples import ShardReader
from medclip.shards.writing.build import Form, build_shards
from medclip.training.loop import run_recipe
from medclip.training.result import read_log
from tests.kits.training import batches_of

NATIVE = {"image_tower": "test_vit", "size_px": 64, "native_aspect": True}


def _losses(out: Path) -> list[float]:
    return [e["loss"] for e in read_log(out / "log.jsonl") if e["kind"] == "step"]


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve square films of as many patients, 9 to train on."""
    folder, rng = tmp_path_factory.mktemp("squares"), np.random.default_rng(1)
    rows = []
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)).save(folder / f"{i}.png")
        rows.append(
            {
                "file": f"{i}.png",
                "patient": str(i),
                "modality": "xray",
                "view": "PA",
                "split": "train" if i < 9 else "val",
                "label:chest_xray_findings:pneumonia": str(i % 2),
                "source": "made here",
                "license": "CC0",
            }
        )
    out = tmp_path_factory.mktemp("shards") / "squares"
    build_shards(pd.DataFrame(rows), out, Form(max_side=64, key=b"k" * 32), images=folder, settings=Settings(workers=1))
    return out


def test_on_square_images_a_step_equals_that_of_the_plain_tower(
    recipe: dict[str, Any], squares: Path, tmp_path: Path
) -> None:
    recipe["data"]["shards"] = str(squares)
    recipe["train"] |= {"batch_size": 9, "epochs": 1}
    recipe["augment"] |= {"rotate_deg": 10}
    for native in (False, True):
        recipe["model"] |= NATIVE | {"native_aspect": native}
        run_recipe(recipe, out=tmp_path / str(native))
    # The log keeps six digits, so that sums of another order may differ by one of the last.
    assert _losses(tmp_path / "True") == pytest.approx(_losses(tmp_path / "False"), abs=2e-5)


def test_a_run_ends_in_a_pack_that_resizes_as_the_training_did(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["model"] |= NATIVE | {"max_tokens": 12}
    recipe["train"]["micro_batch"] = 3
    straight = run_recipe(recipe, out=tmp_path / "a")
    assert straight.pack is not None
    verify_pack(straight.pack)
    model = load_model(straight.pack)
    assert model.preprocess.budget == TokenBudget(16, 12)
    assert read_config(straight.pack)["preprocess_cfg"]["resize_mode"] == "native"
    assert model.preprocess.to_array(View(np.zeros((40, 160, 1), np.uint8), (0, 255))).shape == (32, 96, 3)


def test_a_native_pack_is_gone_on_from_as_one(recipe: dict[str, Any], shards: Path, tmp_path: Path) -> None:
    recipe["model"] |= NATIVE | {"max_tokens": 12}
    recipe["train"]["max_steps"] = 1
    first = run_recipe(recipe, out=tmp_path / "a")
    again = {"name": "on", "data": recipe["data"], "train": recipe["train"], "model": {"start": str(first.pack)}}
    second = run_recipe(again, out=tmp_path / "b")
    assert second.pack is not None
    assert load_model(second.pack).preprocess.budget == TokenBudget(16, 12)
    again["model"]["native_aspect"] = False
    with pytest.raises(MedclipError, match="takes images at their own aspect ratio") as caught:
        run_recipe(again, out=tmp_path / "c")
    assert caught.value.reason is Reason.RECIPE_INVALID


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"image_tower": "test_efficientnet"}}, "native_aspect"),
        ({"objective": {"masked": {"weight": 0.1}}}, "objective.masked"),
        ({"augment": {"stretch": 1.3, "rotate_deg": 0}}, "augment.stretch"),
        ({"model": {"freeze_blocks": 1}}, "freeze_blocks"),
        ({"model": {"native_aspect": False, "max_tokens": 9}}, "max_tokens"),
    ],
)
def test_what_does_not_go_with_it_is_refused_by_name(
    recipe: dict[str, Any], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    recipe["model"] |= NATIVE
    for part, values in changes.items():
        recipe[part] = recipe.get(part, {}) | values
    with pytest.raises(MedclipError, match=message) as caught:
        run_recipe(recipe, out=tmp_path / "run")
    assert caught.value.reason is Reason.RECIPE_INVALID


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_batches_hold_whole_patches_of_each_image(shards: Path, kind: Any) -> None:
    budget = TokenBudget(8, 60)
    with ShardReader(shards, "val") as reader:
        batches = batches_of(reader, batch_size=4, preprocess=Preprocess(64, budget=budget), seed=0, worker_kind=kind)
        (first, *_) = batches.validation(8)
        assert first.images.shape == (4, *budget.packed_shape)
        for row, packed in enumerate(first.images):
            pixels = np.atleast_3d(np.asarray(reader.image(reader.members(row))))
            assert np.array_equal(packed, budget.pack(budget.fit(pixels)))
            assert not np.array_equal(budget.fit(pixels), letterbox(pixels, 64))
        batches.close()
