"""Examinations of several views through the one trainer: batches, losses, heads, chunks, ranks, resume, packs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import normalize

import medclip
from medclip.adaptation.pack.pack_head import read_pack_heads
from medclip.api.pretrain import pretrain
from medclip.errors import MedclipError, Reason
from medclip.models.packs.manifest import read_config
from medclip.models.packs.pack import load_model, pack_card, verify_pack
from medclip.objectives.multi_view import ExamKeys, multi_view_clip_loss
from medclip.sample import ViewType
from medclip.settings import Settings
from medclip.training.batches.loader import LABELS, STUDY, Batch
from medclip.training.loop import run_recipe
from medclip.training.recipe.schema import load_recipe
from medclip.training.result import read_log
from medclip.training.steps.inputs import Exams, exams_of
from medclip.training.steps.towers import TowerOutputs, borrowed
from medclip.training.trainer import Trainer
from tests.kits.exam_shards import exam_recipe, make_exam_shards
from tests.kits.loaded_python import Programs
from tests.kits.rank_run import run_ranks
from tests.kits.size import is_nightly

HEADS = (
    "objective.supervised=[{task: mammography_malignancy}, {task: breast_composition, weight: 0.5}, "
    "{task: breast_cancer_risk}]"
)
TASKS = ("mammography_malignancy", "breast_composition", "breast_cancer_risk")


@pytest.fixture(scope="module")
def exams(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_exam_shards(tmp_path_factory.mktemp("exams"))


@pytest.fixture(scope="module")
def breasts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_exam_shards(tmp_path_factory.mktemp("breasts"), group="breast")


@pytest.fixture
def recipe(exams: Path) -> dict[str, Any]:
    return exam_recipe(exams)


@pytest.fixture(scope="module")
def run(exams: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A whole run with three heads beside the contrastive loss."""
    out = tmp_path_factory.mktemp("run")
    return pretrain(exam_recipe(exams), overrides=[HEADS], out=out / "run")


def _losses(out: Path) -> list[float]:
    return [e["loss"] for e in read_log(out / "log.jsonl") if e["kind"] == "step"]


def _first(recipe: dict[str, Any], changes: list[str], out: Path) -> tuple[Trainer, Batch]:
    trainer = Trainer(load_recipe(recipe, changes), out)
    batch = next(iter(trainer.data.training(0, 1)))
    trainer.data.close()
    trainer.towers.eval()
    return trainer, batch


def _whole_epoch(recipe: dict[str, Any], changes: list[str], out: Path) -> tuple[Trainer, Batch]:
    """All ten examinations of the training split in one batch, in the order of their keys."""
    return _first(recipe, [*changes, "train.batch_size=10", "train.epochs=1"], out)


def test_a_batch_has_the_views_of_each_exam_in_their_places_and_what_is_said_of_each_breast(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    trainer, batch = _whole_epoch(recipe, [], tmp_path / "run")
    assert (batch.num_views, batch.num_texts, len(batch.keys)) == (4, 4, 10)
    assert batch.images.shape == (40, 32, 32, 3)
    assert batch.view_types is not None and batch.text_parts is not None  # noqa: PT018
    there = batch.view_types[:, :, 0] >= 0
    assert sorted(there.sum(axis=1).tolist()) == [1, 3, 4, 4, 4, 4, 4, 4, 4, 4]
    black = batch.images.reshape(4, 10, -1).max(axis=2).T == 0
    assert np.array_equal(black, ~there)
    whole = batch.view_types[there.all(axis=1)]
    assert whole.tolist() == [[[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]]] * len(whole)
    texts = np.array(batch.texts).reshape(4, 10).T
    for sides, own in zip(batch.text_parts.tolist(), texts, strict=True):
        for side, text in zip(sides, own, strict=True):
            if "breast in the" in text:  # quoted from the view's own text
                assert ("right", "left")[side] in text
    alone = int(np.flatnonzero(there.sum(axis=1) == 1)[0])
    assert batch.text_parts[alone].tolist() == [1, 1, 1, 1]
    full = there.all(axis=1)
    assert {tuple(sides) for sides in batch.text_parts[full].tolist()} <= {(0, 1, 0, 1)}
    assert trainer.computer.prepare(batch, 0).there_BV is not None


def test_a_breast_is_a_sample_of_two_views_and_the_other_one_is_no_negative(breasts: Path, tmp_path: Path) -> None:
    changes = ["objective.views.max=2", "train.batch_size=16"]
    trainer, batch = _first(exam_recipe(breasts), changes, tmp_path / "run")
    assert (batch.num_views, batch.num_texts, batch.images.shape[0]) == (2, 2, 32)
    assert max(map(batch.studies.count, batch.studies)) == 2
    pairs = trainer.computer.prepare(batch, 0).pairs
    assert pairs.ignored_BK is not None
    assert np.array_equal(pairs.ignored_BK[:, 0].numpy(), batch.pair_keys[:16, STUDY])
    assert trainer.recipe.objective.same_study == "ignored"


def test_the_loss_is_that_of_views_and_texts_with_the_weights_of_the_recipe(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    views = "objective.views={max: 4, image_text: 0.5, images: 0.8, texts: 0.3, joint: 0.7}"
    trainer, batch = _whole_epoch(recipe, [views], tmp_path / "run")
    with torch.no_grad():
        outputs = trainer.computer.encode(batch)
    loss = trainer.computer.backward(trainer.computer.prepare(batch, 0), 0)
    exams = exams_of(batch)
    assert exams is not None
    image_NVD, text_NTD = outputs.image_BD.unflatten(0, (10, 4)), outputs.text_BD.unflatten(0, (10, 4))
    there, sides = exams.there_BV, exams.view_types_BV3[:, :, 0]
    assert not image_NVD[~there].any()
    mean_ND = normalize(image_NVD.sum(1), dim=-1)  # how a fusion begins
    torch.testing.assert_close(outputs.fused_BD, mean_ND)
    expected = multi_view_clip_loss(
        image_NVD.unbind(1),
        text_NTD.unbind(1),
        trainer.towers.clip.logit_scale.exp().detach(),
        w_it=0.5,
        w_vv=0.8,
        w_tt=0.3,
        w_joint=0.7,
        joint_BD=mean_ND,
        exams=ExamKeys(
            image_there_BV=there,
            image_part_BV=sides,
            text_part_BT=torch.from_numpy(batch.text_parts),
            text_positive_BT=exams.text_keys_BT,
        ),
        pairs=trainer.computer.pairs(batch.pair_keys[:10], batch.valid),
    )
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    relation = trainer.computer.pairs(batch.pair_keys[:10], batch.valid).positive_BK
    assert relation is not None
    assert np.array_equal(relation.numpy(), batch.pair_keys[:10, [LABELS]])


@pytest.mark.golden
def test_two_views_of_a_breast_and_two_texts_give_the_golden_loss_of_mammo_clip(
    breasts: Path, golden: Path, tmp_path: Path
) -> None:
    views = "objective={views: {max: 2, joint: 0}, same_label: negative, same_text: negative, same_study: negative}"
    trainer = Trainer(load_recipe(exam_recipe(breasts), [views]), tmp_path / "run")
    stored = np.load(golden / "mammo_clip_loss.npz", allow_pickle=False)
    for case in sorted({key.split("/")[0] for key in stored}):
        image, image2, text, text2 = (
            torch.tensor(stored[f"{case}/{name}"]) for name in ("image", "image_view", "text", "text2")
        )
        size = len(image)
        outputs = TowerOutputs(
            torch.stack([image, image2], 1).flatten(0, 1),
            torch.stack([text, text2], 1).flatten(0, 1),
            torch.zeros(size, 2),
            torch.zeros(size, 0),
            torch.zeros_like(image),
        )
        types = torch.tensor([[0, 0, 0], [0, 1, 0]]).expand(size, -1, -1)
        parts, keys = torch.zeros(2, size, 2, dtype=torch.int64)
        with torch.no_grad():
            trainer.towers.clip.logit_scale.fill_(float(np.log(stored[f"{case}/scale"])))
            pairs = trainer.computer.pairs(np.full((size, 3), -1), np.ones(size, bool))
            loss = trainer.computer.contrast(outputs, pairs, Exams(types, parts, keys))
        assert float(loss) == pytest.approx(float(stored[f"{case}/loss_full"]), rel=1e-5)


def test_chunks_of_a_batch_give_the_losses_of_the_whole(recipe: dict[str, Any], tmp_path: Path) -> None:
    run_recipe(recipe, [HEADS], out=tmp_path / "whole")
    losses = _losses(tmp_path / "whole")
    run_recipe(recipe, [HEADS, "train.micro_batch=5"], out=tmp_path / "chunks")  # one exam at a time
    assert _losses(tmp_path / "chunks") == pytest.approx(losses, abs=1e-4)


@pytest.mark.slow
def test_two_ranks_learn_of_exams_what_one_process_does(
    recipe: dict[str, Any], programs: Programs, tmp_path: Path
) -> None:
    run_recipe(recipe, [HEADS], out=tmp_path / "one")
    small = [HEADS, "train.micro_batch=4"]
    jobs = {"ddp": [HEADS], "fsdp": [*small, "train.parallel=fsdp"]}
    if is_nightly():
        jobs["ddp_small"] = small
    run_ranks(
        2,
        [{"recipe": recipe, "out": str(tmp_path / name), "overrides": changes} for name, changes in jobs.items()],
        tmp_path,
        programs,
    )
    weights, validated = (
        {n: load_file(tmp_path / n / "pack" / "model.safetensors") for n in ("one", *jobs)},
        {n: [e for e in read_log(tmp_path / n / "log.jsonl") if e["kind"] == "val"][-1] for n in ("one", *jobs)},
    )
    for name in jobs:
        assert _losses(tmp_path / name) == pytest.approx(_losses(tmp_path / "one"), abs=5e-4)
        assert validated[name] == pytest.approx(validated["one"], abs=2e-3)
        for tensor, value in weights["one"].items():
            torch.testing.assert_close(weights[name][tensor].float(), value.float(), atol=3e-3, rtol=0)


@pytest.mark.slow
def test_two_ranks_learn_without_a_joint_term(recipe: dict[str, Any], programs: Programs, tmp_path: Path) -> None:
    changes = ["objective.views.joint=0", "train.max_steps=3"]
    run_recipe(recipe, changes, out=tmp_path / "one")
    run_ranks(2, [{"recipe": recipe, "out": str(tmp_path / "two"), "overrides": changes}], tmp_path, programs)
    assert _losses(tmp_path / "two") == pytest.approx(_losses(tmp_path / "one"), abs=5e-4)


def test_a_fusion_that_nothing_reads_does_not_learn(recipe: dict[str, Any], tmp_path: Path) -> None:
    learning = []
    for number, changes in enumerate(([], ["objective.views.joint=0"], ["objective.views.joint=0", HEADS])):
        trainer = Trainer(load_recipe(recipe, changes), tmp_path / str(number))
        trainer.data.close()
        learning.append({p.requires_grad for p in trainer.towers.clip.fusion.parameters()})
    assert learning == [{True}, {False}, {True}]


@pytest.mark.parametrize(
    ("tower", "changes"),
    [
        ("test_efficientnet", ["model.freeze_bn=false"]),
        ("test_convnext", []),
        ("test_vit", ["model.native_aspect=true", "objective.views.fusion=concat"]),
    ],
)
def test_any_image_tower_takes_views(recipe: dict[str, Any], tmp_path: Path, tower: str, changes: list[str]) -> None:
    recipe["model"]["image_tower"] = tower
    result = run_recipe(recipe, [*changes, "train.epochs=1"], out=tmp_path / "run")
    assert result.pack is not None
    assert all(np.isfinite(_losses(tmp_path / "run")))
    model = load_model(result.pack)
    assert model.fusion is not None
    views = [np.zeros((32, 16 if model.preprocess.budget else 32, 3), np.uint8)] * 2
    vectors = model.encode_image(views if model.preprocess.budget else np.stack(views))
    assert model.fuse(vectors, [ViewType("R", "CC"), ViewType("R", "MLO")])[0].shape == (16,)


def test_views_that_are_missing_are_not_sent_through_the_tower(recipe: dict[str, Any], tmp_path: Path) -> None:
    trainer, batch = _whole_epoch(recipe, [], tmp_path / "run")
    seen: list[int] = []
    trainer.towers.clip.visual.register_forward_hook(lambda _module, given, _out: seen.append(len(given[0])))
    trainer.computer.backward(trainer.computer.prepare(batch, 0), 0)
    assert seen == [36]
    trainer.computer.backward(trainer.computer.nothing(0), 0)
    assert seen == [36, 1]


def test_no_image_is_mirrored_where_its_side_is_known_whatever_is_said(recipe: dict[str, Any], tmp_path: Path) -> None:
    del recipe["text"]
    recipe["model"] = {"image_tower": "test_vit", "image_weights": None, "size_px": 32}
    recipe["objective"] |= {"contrastive": 0, "supervised": {"task": "breast_composition"}}
    still = [f"augment.{name}=0" for name in ("rotate_deg", "brightness", "contrast")] + ["augment.crop_scale=[1, 1]"]
    _, plain = _whole_epoch(recipe, [*still, "augment.flip=0"], tmp_path / "plain")
    _, flipped = _whole_epoch(recipe, [*still, "augment.flip=1"], tmp_path / "flipped")
    assert np.array_equal(plain.images, flipped.images)


def test_heads_are_bound_by_the_names_of_their_tasks_in_log_weights_and_pack(run: Any) -> None:
    validated = [e for e in read_log(run.out / "log.jsonl") if e["kind"] == "val"][-1]
    assert {f"supervised_loss.{task}" for task in TASKS} <= validated.keys()
    assert validated["supervised_loss"] == pytest.approx(
        np.mean([validated[f"supervised_loss.{t}"] for t in TASKS]), abs=1e-5
    )
    assert {"cross_view_r1", "cross_view_chance_r1", "image_to_text_r1"} <= validated.keys()
    assert 0 < validated["cross_view_chance_r1"] < 1
    verify_pack(run.pack)
    card = pack_card(run.pack)
    heads = read_pack_heads(run.pack, card)
    assert tuple(heads) == TASKS
    assert card.adapted is None
    table = json.loads((run.pack / "heads.json").read_text())
    assert {name: (entry["kind"], entry["level"]) for name, entry in table.items()} == {
        "mammography_malignancy": ("linear", heads["mammography_malignancy"].text.task.level),
        "breast_composition": ("linear", heads["breast_composition"].text.task.level),
        "breast_cancer_risk": ("hazard", "exam"),
    }
    arrays = load_file(run.pack / "heads.safetensors")
    assert {name.partition("/")[0] for name in arrays} == set(TASKS)


def test_the_heads_of_a_pack_give_what_the_trained_network_gives(run: Any, exams: Path) -> None:
    model = load_model(run.pack)
    trainer = Trainer(load_recipe(exam_recipe(exams), [HEADS]), run.out)
    trainer.towers.eval()
    batch = next(iter(trainer.val.validation(4)))  # type: ignore[union-attr]
    averaged = trainer.ema.state if trainer.ema else None
    with torch.no_grad(), borrowed(trainer.towers, averaged):
        outputs = trainer.computer.encode(batch)
    trainer.data.close()
    assert batch.view_types is not None
    heads = read_pack_heads(run.pack, pack_card(run.pack))
    expected = outputs.logits_BC.split([len(head.text.names) for head in heads.values()], dim=1)
    for sample in range(4):
        there = batch.view_types[sample, :, 0] >= 0
        images = batch.images.reshape(4, 4, 32, 32, 3)[there, sample]
        types = [ViewType("RL"[s], ("CC", "MLO")[p]) for s, p, _ in batch.view_types[sample, there].tolist()]
        fused, _ = model.fuse(model.encode_image(images), types)
        for head, logits in zip(heads.values(), expected, strict=True):
            ours = head.head.logits(fused[None], model)[0]
            np.testing.assert_allclose(ours, logits[sample].numpy(), atol=0.02)  # weights of packs are fp16
        risk = heads["breast_cancer_risk"].head.logits(fused[None], model)[0]
        assert (np.diff(risk) >= 0).all()


def test_the_run_is_measured_on_the_test_patients_by_the_fused_vector(run: Any) -> None:
    held = pack_card(run.pack).held_out
    assert held is not None
    assert (held.num_images, held.num_patients) == (6, 6)
    assert "retrieval" in held.figures
    assert "fusion" in read_config(run.pack)["model_cfg"]
    assert run.report.is_file()


def test_the_frozen_tower_of_a_pack_is_probed_with_one_head(run: Any, recipe: dict[str, Any], tmp_path: Path) -> None:
    del recipe["text"]
    recipe["model"] = {"image_weights": str(run.pack)}
    probe = [
        "objective={contrastive: 0, views: {fusion: mean}, supervised: {task: mammography_malignancy}}",
        "model.lock_image=true",
        "train.ema=0",
        "train.lr=0.1",
    ]
    before = Trainer(load_recipe(recipe, probe), tmp_path / "before").towers.state_dict()
    result = pretrain(recipe, overrides=probe, out=tmp_path / "run")
    weights = load_file(result.out / "pack" / "model.safetensors")
    assert not any(name.startswith("fusion.") for name in weights)  # a mean learns nothing
    for name, value in weights.items():
        torch.testing.assert_close(value.float(), before[name].to(value.dtype).float())
    of_pack = load_file(run.pack / "model.safetensors")
    assert all(torch.equal(of_pack[name], weights[name]) for name in weights if name.startswith("visual.trunk.blocks"))
    head = load_file(result.out / "heads.safetensors")["mammography_malignancy/weight"]
    assert float(head.abs().max()) > 0.01
    assert "fusion" in read_config(result.out / "pack")["model_cfg"]
    assert pack_card(result.out / "pack").adapted is not None


def test_views_beyond_the_largest_number_are_left_out_and_the_log_says_so(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    run_recipe(recipe, ["objective.views.max=2", "train.max_steps=1"], out=tmp_path / "run")
    notes = [e["note"] for e in read_log(tmp_path / "run" / "log.jsonl") if e["kind"] == "note"]
    assert any(note.startswith("9 samples of the split have more than 2 views") for note in notes), notes


def test_each_head_answers_its_task_when_exams_are_scored(run: Any, exams: Path, tmp_path: Path) -> None:
    table = pd.read_csv(exams.parent / "table.csv", dtype=str, keep_default_na=False)
    table = table[table["patient"] == "simulated:00000"]
    place = tmp_path / "images"
    place.mkdir()
    for name in table["file"]:
        shutil.copy(exams.parent / name, place)
    table.to_csv(tmp_path / "table.csv", index=False)
    scored = medclip.score(
        place, tmp_path / "scores", model=run.pack, table=tmp_path / "table.csv", settings=Settings(workers=1)
    )
    rows = scored.scores.to_pandas()
    assert {*rows["task"]} == set(TASKS)
    risk = rows[rows["task"] == "breast_cancer_risk"]["probability"].to_numpy()
    assert (np.diff(risk) >= 0).all()


def test_a_risk_is_not_asked_in_words_of_a_pack_without_a_head_for_it(exams: Path, tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="breast_cancer_risk is a risk, which words cannot ask") as caught:
        medclip.score(exams.parent / "images", tmp_path / "scores", task="breast_cancer_risk")
    assert caught.value.reason is Reason.WRONG_USE


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("objective.two_views={}", "views does not go with two_views"),
        ("objective.masked={}", "views does not go with masked"),
        ("objective.loss=siglip", "views goes with loss: clip"),
        ("objective.views.max=3", "max"),
        ("objective.supervised=[{task: breast_composition}, {task: breast_composition}]", "breast_composition twice"),
    ],
)
def test_what_does_not_go_with_views_is_refused(recipe: dict[str, Any], change: str, words: str) -> None:
    with pytest.raises(MedclipError, match=words) as caught:
        load_recipe(recipe, [change])
    assert caught.value.reason is Reason.RECIPE_INVALID


def test_shards_of_exams_without_views_in_the_recipe_are_refused(recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match=r"several views.*objective\.views") as caught:
        Trainer(load_recipe(recipe, ["objective.views=null"]), tmp_path / "run")
    assert caught.value.reason is Reason.RECIPE_INVALID


def test_shards_of_single_images_are_exams_of_one_view(shards: Path, tmp_path: Path) -> None:
    result = run_recipe(exam_recipe(shards), ["train.epochs=1"], out=tmp_path / "run")
    assert result.pack is not None
    assert all(np.isfinite(_losses(tmp_path / "run")))
