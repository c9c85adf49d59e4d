"""`medclip.finetune`: from a table of labels to a pack that scores, tested once on patients nothing was chosen with."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import medclip
from medclip.adaptation.pack.pack_head import read_pack_heads
from medclip.api.pretrain import measured
from medclip.auditing.checks.leakage.training_data import of_pack
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.models.inputs.preprocess import Preprocess
from medclip.models.packs.card import Card
from medclip.models.packs.pack import load_model, pack_card, save_pack
from medclip.models.towers.build import build_clip
from medclip.models.towers.timm_tower import without_words
from medclip.settings import Settings
from medclip.shards.reading.samples import ShardReader
from medclip.training import trainer
from medclip.training.checkpoints import state as store
from medclip.training.checkpoints.start import begin
from medclip.training.loop import run_recipe
from medclip.training.recipe.schema import load_recipe
from medclip.training.result import BEST, read_log
from medclip.training.steps.supervised import SupervisedHead
from tests.kits.finetuning import FAST, KEY, TOWER, labelled_films
from tests.kits.volume_models import volume_pack, volume_recipe, volume_shards, write_ct_file

ONE = Settings(workers=1)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of made-up films."""
    return labelled_films(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="module")
def run(films: Path, tmp_path_factory: pytest.TempPathFactory) -> medclip.FinetuneResult:
    """Two findings, learned from 20 patients in 15 steps."""
    out = tmp_path_factory.mktemp("run") / "out"
    return tune(films, out, ["disc", "bar"])


def tune(films: Path, out: Path, label: str | list[str], model: str | Path = TOWER, **more: Any) -> Any:
    overrides = {**FAST, **more}
    key = films.parent / KEY
    return medclip.finetune(
        films, label, model=model, out=out, patient="person", overrides=overrides, key_file=key, settings=ONE
    )


def test_the_finished_pack_answers_with_the_head_that_was_learned(run: medclip.FinetuneResult, films: Path) -> None:
    assert run.pack is not None
    card, model = pack_card(run.pack), load_model(run.pack)
    assert card.adapted is not None
    assert (card.adapted.method, card.adapted.base, card.adapted.num_train) == ("finetune", TOWER, 40)
    assert card.adapted.num_in_training == 0
    of_base, shots = of_pack(run.pack)
    assert of_base.sha256 == frozenset()
    assert len(shots.sha256 or ()) == 46
    assert card.tasks["findings"].classes == ("disc", "bar")
    own = read_pack_heads(run.pack, card)["findings"]
    scored = medclip.score(
        films.parent, run.run.out / "scores", model=run.pack, modality="xray", group_by="file", settings=ONE
    )
    rows = scored.to_pandas().set_index("files")
    for name in ("0_0.png", "7_1.png"):
        pixels = model.preprocess.to_array(medclip.open_study(films.parent / name, "xray").views[0])
        logits_C = own.head.logits(model.encode_image(pixels[None]), model)[0]
        expected = 1 / (1 + np.exp(-logits_C))
        of_file = rows.loc[json.dumps([name])].set_index("class")["probability"]
        np.testing.assert_allclose([of_file["disc"], of_file["bar"]], expected, atol=1e-5)


def test_the_pack_gives_the_logits_of_the_network_that_was_chosen(run: medclip.FinetuneResult) -> None:
    assert run.pack is not None
    weights = load_file(run.run.out / BEST)
    head = SupervisedHead(64, 2)
    prefix = "supervised.findings."
    head.load_state_dict({n.removeprefix(prefix): v for n, v in weights.items() if n.startswith(prefix)})
    model = load_model(run.pack)
    clip = build_clip(json.loads((run.pack / "open_clip_config.json").read_text())["model_cfg"]).eval()
    clip.load_state_dict({n: v for n, v in weights.items() if not n.startswith("supervised.")})
    images = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 3), dtype=np.uint8)
    with torch.no_grad():
        features: Any = clip.encode_image(model.normalise(images), normalize=True)  # type: ignore[operator]
        expected = head(features).numpy()
    own = read_pack_heads(run.pack, pack_card(run.pack))["findings"]
    np.testing.assert_allclose(own.head.logits(model.encode_image(images), model), expected, atol=0.02)  # fp16 weights


def test_the_best_epoch_on_validation_is_kept_and_the_test_is_measured_once(run: medclip.FinetuneResult) -> None:
    entries = [e for e in read_log(run.run.out / "log.jsonl") if e["kind"] == "val"]
    assert len(entries) == 3
    assert {"val_loss", "supervised_loss", "auroc"} <= set(entries[0])
    last = entries[-1]
    assert (last["num_images"], last["num_patients"]) == (6, 3)
    assert "auroc_low" not in last, "three patients have no interval"
    held = pack_card(run.pack or "").held_out
    assert held is not None
    assert held.split == "test"
    assert (held.num_images, held.num_patients, held.num_in_training) == (14, 7, 0)
    by_class = [row for row in run.test if row["metric"].startswith("auroc")]
    assert [row["value"] for row in by_class] == sorted(row["value"] for row in by_class)
    assert {row["metric"] for row in by_class} == {"auroc disc", "auroc bar"}
    assert all(row["chance"] == 0.5 and row["low"] <= row["value"] <= row["high"] for row in by_class)
    mean = next(row for row in run.test if row["metric"] == "macro_auroc")
    assert mean["value"] == pytest.approx(np.mean([row["value"] for row in by_class]), abs=1e-3)
    page = (run.report or Path()).read_text(encoding="utf-8")
    assert f"They are of {last['num_images']} images of {last['num_patients']} patients" in page
    assert page.index("AUROC, disc") < page.index("AUROC, bar") or by_class[0]["metric"] == "auroc bar"


def test_weights_are_kept_where_the_mean_area_is_highest_and_not_where_the_loss_is_lowest(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = iter([{"val_loss": 3.0, "auroc": 0.6}, {"val_loss": 2.0, "auroc": 0.9}, {"val_loss": 1.0, "auroc": 0.7}])
    kept: list[Path] = []
    save = store.save_tensors

    def noted(tensors: Any, file: Path) -> None:
        kept.append(file)
        save(tensors, file)

    monkeypatch.setattr(trainer, "validate", lambda *args, **more: next(figures))
    monkeypatch.setattr(store, "save_tensors", noted)
    tune(films, tmp_path / "out", ["disc", "bar"])
    assert [file.name for file in kept].count(BEST) == 2


def test_no_patient_is_on_two_sides_and_the_list_names_all_that_was_learned_from(run: medclip.FinetuneResult) -> None:
    shards = run.run.out / "shards"
    whose = {
        split: {row["patient"] for row in ShardReader(shards, split).provenance()} for split in ("train", "val", "test")
    }
    assert not whose["train"] & whose["val"]
    assert not whose["test"] & (whose["train"] | whose["val"])
    listed = pd.read_csv((run.pack or Path()) / "shots.csv")
    assert {role: set(rows["patient"]) for role, rows in listed.groupby("role")} == {
        s: whose[s] for s in ("train", "val")
    }


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    run: medclip.FinetuneResult, films: Path, tmp_path: Path
) -> None:
    out = tmp_path / "stopped"
    out.mkdir()
    for name in ("finetune.json", "task.yaml"):
        shutil.copy(run.run.out / name, out / name)
    shutil.copytree(run.run.out / "shards", out / "shards")
    recipe = json.loads((run.run.out / "recipe.json").read_text())
    recipe["data"]["shards"], recipe["objective"]["supervised"]["task"] = [str(out / "shards")], str(out / "task.yaml")
    half = run_recipe(recipe, out=out, stop=lambda step: step == 7)
    assert not half.finished
    report = measured(load_recipe(recipe), half, None).report
    assert report is not None
    page = report.read_text()
    assert "the run is not finished" in page
    assert "hidden pixels" not in page
    again = tune(films, out, ["disc", "bar"])
    for name in ("pack/model.safetensors", "pack/adapted.safetensors", "best.safetensors"):
        assert (out / name).read_bytes() == (run.run.out / name).read_bytes(), name
    assert again.test == run.test


def test_a_folder_with_other_labels_is_refused(run: medclip.FinetuneResult, films: Path) -> None:
    with pytest.raises(MedclipError) as refused:
        tune(films, run.run.out, "kind")
    assert refused.value.reason is Reason.OUTPUT_IN_USE


def test_one_of_three_classes_is_learned_and_measured_by_balanced_accuracy_too(films: Path, tmp_path: Path) -> None:
    result = tune(films, tmp_path / "out", "kind", **{"train.epochs": 1, "objective.supervised.smoothing": 0.1})
    metrics = {row["metric"]: row for row in result.test}
    assert metrics["balanced_accuracy"]["chance"] == pytest.approx(1 / 3, abs=1e-3)
    assert "macro_auroc" in metrics
    assert {"auroc", "balanced_accuracy"} <= set(result.run.validation)
    assert "Kind" in repr(result)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack as masked pretraining writes it: the mean of the patch tokens, after the last norm."""
    return masked_pack(tmp_path_factory.mktemp("mae") / "pack", "aa")


def masked_pack(folder: Path, *hashes: str) -> Path:
    config: Mapping[str, Any] = without_words({"vision_cfg": {"timm_model_name": TOWER, "image_size": 64}})
    torch.manual_seed(0)
    model = build_clip({**config, "embed_dim": 64})
    pixels = Preprocess(64, (0.4, 0.4, 0.4), (0.3, 0.3, 0.3))
    files = {"train_hashes.txt": "\n".join(sorted(hashes)).encode() + b"\n", "patient_hashes.txt": b"bb\n"}
    card = Card(name="mae", data=(), train_hashes_file="train_hashes.txt", patient_hashes_file="patient_hashes.txt")
    return save_pack(
        folder, model, None, pixels, card, config={**config, "embed_dim": 64}, extra_files=files, half=False
    )


def test_a_pretrained_pack_starts_the_tower_with_its_pixels_and_stays_in_the_lists(
    pretrained: Path, films: Path, tmp_path: Path
) -> None:
    result = tune(
        films,
        tmp_path / "out",
        ["disc", "bar"],
        pretrained,
        **{"train.epochs": 1, "train.lr": 1e-9, "train.min_lr": 0, "model.size_px": 48},
    )
    assert result.pack is not None
    ours, theirs = (load_file(pack / "model.safetensors") for pack in (result.pack, pretrained))
    name = "visual.trunk.blocks.0.attn.qkv.weight"
    torch.testing.assert_close(ours[name].float(), theirs[name].float(), atol=2e-3, rtol=1e-2)
    assert ours["visual.trunk.pos_embed"].shape[1] == 1 + 9
    model = load_model(result.pack)
    assert model.preprocess.mean == (0.4,) * 3
    assert model.preprocess.size_px == 48
    assert "aa" in (result.pack / "train_hashes.txt").read_text().split()
    card = pack_card(result.pack)
    assert card.adapted is not None
    assert card.adapted.base == "mae"
    assert "mae" in card.created_from["image_tower_of"]


def test_test_images_that_the_start_was_pretrained_on_are_measured_and_counted(films: Path, tmp_path: Path) -> None:
    seen = [hashlib.sha256(file.read_bytes()).hexdigest() for file in films.parent.glob("*.png")]
    result = tune(
        films, tmp_path / "out", ["disc", "bar"], masked_pack(tmp_path / "pack", *seen), **{"train.epochs": 1}
    )
    held = pack_card(result.pack).held_out
    assert held is not None
    assert (held.num_images, held.num_in_training) == (14, 0)
    assert any(note.startswith("14 images of this split were among those") for note in result.notes)


def test_what_the_figures_lack_is_said_beside_them(films: Path, tmp_path: Path) -> None:
    table = pd.read_csv(films, dtype=str, keep_default_na=False)
    table["split"] = ["test" if int(p.split()[1]) in (0, 1, 4, 8, 9, 12, 13) else "" for p in table["person"]]
    table.to_csv(films.parent / "split.csv", index=False)
    result = tune(films.parent / "split.csv", tmp_path / "out", ["disc", "bar"], TOWER, **{"train.epochs": 1})
    held = pack_card(result.pack).held_out
    assert held is not None
    assert any("No area is given for bar" in note for note in held.notes)
    assert [row["metric"] for row in result.test] == ["macro_auroc", "auroc disc"]  # of what the mean is
    assert set(held.notes) <= set(result.notes)


@pytest.mark.parametrize("objective", [{}, {"contrastive": 0, "masked": {"decoder": "dec128d2", "weight": 1}}])
def test_a_pretrained_pack_starts_the_contrastive_core_and_more_masked_pretraining(
    objective: dict[str, Any], pretrained: Path, run: medclip.FinetuneResult, tmp_path: Path
) -> None:
    words = {} if objective else {"embed_dim": 16, "text_width": 16, "text_heads": 2, "text_layers": 1}
    text = {} if objective else {"text": {"vocab_size": 600, "context_length": 16, "captions_per_sample": 0}}
    recipe = load_recipe(
        {
            "name": "next",
            "data": {"shards": str(run.run.out / "shards")},
            "objective": objective,
            "model": {"image_weights": str(pretrained), **words},
            **text,
        }
    )
    if not objective:  # made-up labels have no wordings to train a tokenizer on
        recipe = load_recipe({**recipe.model_dump(mode="json", exclude_unset=True)}, {"text.captions_per_sample": 0})
    with ShardReader(run.run.out / "shards", "train") as reader:
        started = begin(recipe, tmp_path, reader)
    visual: Any = started.model.visual
    theirs = load_file(pretrained / "model.safetensors")
    for name, value in visual.trunk.state_dict().items():
        if not name.startswith(("fc_norm.", "head.")):
            torch.testing.assert_close(value, theirs[f"visual.trunk.{name}"])
    assert visual.trunk.pos_embed.requires_grad == (not objective)
    assert started.preprocess.size_px == 64


def test_a_pack_of_volumes_is_tuned_on_clips(tmp_path: Path) -> None:
    pack, rows = volume_pack(tmp_path / "clips"), []
    for n in range(12):
        name = write_ct_file(tmp_path / f"{n}.nii", seed=n).name
        rows.append({"file": name, "patient": f"p{n}", "modality": "ct", "kind": ("healthy", "ill")[n % 2]})
    pd.DataFrame(rows).to_csv(tmp_path / "labels.csv", index=False)
    one = {"train.epochs": 1, "train.threads": 1, "train.batch_size": 2}
    result = medclip.finetune(
        tmp_path / "labels.csv", "kind", model=pack, out=tmp_path / "out", overrides=one, settings=ONE
    )
    assert result.pack is not None
    assert load_model(result.pack).preprocess.volume == load_model(pack).preprocess.volume
    scored = medclip.score(tmp_path / "0.nii", model=result.pack, modality="ct", settings=ONE).to_pandas()
    assert scored["class"].tolist() == ["healthy", "ill"]


def test_a_pack_of_images_starts_a_tower_of_volumes(pretrained: Path, tmp_path: Path) -> None:
    values = volume_recipe(volume_shards(tmp_path))
    values["model"] = {"image_weights": str(pretrained), "volume": values["model"]["volume"]}
    with ShardReader(tmp_path / "s", "train") as reader:
        started = begin(load_recipe(values), tmp_path, reader)
    tower: Any = started.model.visual
    theirs = load_file(pretrained / "model.safetensors")
    name = "blocks.0.attn.qkv.weight"
    assert torch.equal(tower.trunk.state_dict()[name], theirs[f"visual.trunk.{name}"])
    grey = theirs["visual.trunk.patch_embed.proj.weight"].sum(1)
    torch.testing.assert_close(tower.trunk.patch_embed.proj.weight.sum(2)[:, 0], grey)


@pytest.mark.parametrize(
    ("arguments", "reason", "words"),
    [
        ({"model": "no_such_tower"}, Reason.PACK_NOT_FOUND, "no tower of timm or of ECGs named"),
        ({"label": "modality"}, Reason.WRONG_USE, "has only the class 'xray'"),
        ({"label": "nothing"}, Reason.TABLE_INVALID, "nothing"),
        ({"label": "person"}, Reason.WRONG_USE, "cannot name both the patients and the labels"),
        ({"overrides": {"train.speed": 1}}, Reason.RECIPE_INVALID, "speed"),
        ({"overrides": {"train.device": "tpu"}}, Reason.WRONG_USE, "tpu"),
        ({"patient": None}, Reason.TABLE_INVALID, "patient"),
        ({"test_share": 0.6, "val_share": 0.6}, Reason.WRONG_USE, "no parts of one whole"),
        ({"overrides": {"model.size_px": 50}}, Reason.RECIPE_INVALID, "no multiple of its patches"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_read(
    arguments: dict[str, Any], reason: Reason, words: str, films: Path, tmp_path: Path
) -> None:
    values: dict[str, Any] = {"model": TOWER, "labels": films, "label": "kind", "patient": "person"} | arguments
    with pytest.raises(MedclipError, match=words) as refused:
        medclip.finetune(**values, out=tmp_path / "out")
    assert refused.value.reason is reason
    assert not (tmp_path / "out" / "shards").exists()


def test_the_command_prints_json_and_exits_with_0(
    run: medclip.FinetuneResult, films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [part for key, value in FAST.items() for part in ("--set", f"{key}={value}")]
    code = main(
        [
            "finetune",
            "--model",
            TOWER,
            "--labels",
            str(films),
            "--label",
            "disc",
            "--label",
            "bar",
            "--patient",
            "person",
            "--out",
            str(run.run.out),
            "--key-file",
            str(films.parent / KEY),
            "--json",
            *settings,
        ]
    )
    assert code == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["classes"] == ["disc", "bar"]
    assert printed["images"] == {"train": 40, "val": 6, "test": 14}
    assert printed["test"] == [dict(row) for row in run.test]
