"""The recipe of fine-tuning is that of medical MAE, fitted to how many images there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medclip.adaptation.finetune.recipe_of import Start, find_start, recipe_of
from medclip.errors import MedclipError, Reason
from medclip.models.packs.pack import find_pack
from medclip.text.vocabulary.load import load_task

PACK = Start(find_pack("medclip-mini"), "tf_efficientnet_lite0")


def recipe(overrides: dict[str, Any] | None = None, *, start: Start = PACK, num_train: int = 80_000) -> Any:
    return recipe_of(
        start,
        load_task("chest_xray_findings"),
        ("pneumonia",),
        out=Path("run"),
        task_file=Path("task.yaml"),
        shards=Path("shards"),
        num_train=num_train,
        num_val=9,
        seed=3,
        name=None,
        overrides=overrides or {},
    )


def test_the_published_values_stand_for_the_published_batch() -> None:
    t = recipe({"train.batch_size": 1024}).train
    assert (t.lr, t.min_lr, t.epochs, t.weight_decay, t.layer_decay) == (1e-3, 1e-5, 75, 0.05, 0.55)
    assert t.warmup_steps == 5 * (80_000 // 1024)
    assert (t.image_lr_factor, t.export, t.clip_norm) == (1, "best", None)
    r = recipe()
    assert r.model.drop_path == 0.2
    assert (r.augment.rand_augment.magnitude, r.augment.rand_augment.spread) == (6, 0.5)
    assert not r.needs_words


@pytest.mark.parametrize(("num_train", "batch"), [(6, 2), (40, 8), (200, 32), (5000, 64)])
def test_few_images_are_learned_in_small_batches_at_the_rate_of_64(num_train: int, batch: int) -> None:
    t = recipe(num_train=num_train).train
    assert (t.batch_size, t.lr) == (batch, pytest.approx(6.25e-5))


def test_overrides_decide_and_what_follows_from_them_follows() -> None:
    t = recipe({"train.epochs": 30, "train.batch_size": 128}, num_train=640).train
    assert (t.epochs, t.warmup_steps, t.lr) == (30, 10, pytest.approx(1.25e-4))
    assert recipe({"train.lr": 1e-6}).train.min_lr == 1e-6


def test_random_weights_learn_at_one_rate_and_blocks_that_cannot_be_skipped_are_not() -> None:
    r = recipe(start=Start(None, "resnet18"))
    assert (r.train.layer_decay, r.model.drop_path, r.model.freeze_bn) == (1.0, 0.0, False)
    assert (r.model.image_tower, r.model.image_weights, r.model.size_px) == ("resnet18", None, 224)


@pytest.mark.parametrize(("tower", "skips"), [("joint_patch", 0.2), ("lead_patch", 0.2), ("resnet1d", 0.0)])
def test_a_tower_of_ecgs_begins_by_its_name_and_nothing_of_images_is_set(tower: str, skips: float) -> None:
    start = find_start(tower)
    assert start == Start(None, tower)
    r = recipe({"model.signal.sampling_hz": 100}, start=start)
    assert r.model.signal is not None
    assert (r.model.signal.tower, r.model.signal.sampling_hz, r.model.drop_path) == (tower, 100, skips)
    assert r.augment.model_fields_set == {"signal"}


def test_what_it_begins_with_is_a_pack_or_a_tower_of_timm() -> None:
    assert find_start("medclip-mini") == PACK
    assert find_start("vit_small_patch16_224") == Start(None, "vit_small_patch16_224")
    with pytest.raises(MedclipError, match="vit_small") as refused:
        find_start("vit_small_patch16_244")
    assert refused.value.reason is Reason.PACK_NOT_FOUND
