"""Training goes on exactly where it stopped, says what happens, and ends in a pack."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from medclip.errors import MedclipError, Reason
from medclip.exit_codes import exit_code
from medclip.files.output import draft_of, is_draft
from medclip.imaging.perceptual_hash import hash_images, hash_lines
from medclip.models.packs.pack import load_model, verify_pack
from medclip.settings import Settings
from medclip.shards.reading.samples import ShardReader
from medclip.shards.writing.build import Form, build_shards
from medclip.training import trainer as module
from medclip.training.loop import run_recipe
from medclip.training.recipe.schema import load_recipe
from medclip.training.result import PretrainResult, read_log
from medclip.training.steps.optimizer import training_mode
from medclip.training.steps.step import StepComputer
from medclip.training.trainer import Trainer


def _losses(out: Path) -> list[tuple[int, float]]:
    return [(e["step"], e["loss"]) for e in read_log(out / "log.jsonl") if e["kind"] == "step"]


def _tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    (file,) = checkpoint.glob("*.safetensors")
    return load_file(file)


def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["train"]["checkpoint_every"] = 2
    straight = run_recipe(recipe, out=tmp_path / "a")

    def kill(step: int) -> bool:
        if step == 5:
            raise RuntimeError("power cut")
        return False

    with pytest.raises(RuntimeError, match="power cut"):
        run_recipe(recipe, out=tmp_path / "b", stop=kill)
    with (tmp_path / "b" / "log.jsonl").open("a") as f:
        f.write('{"kind": "step", "st')  # a line cut short
    resumed = run_recipe(recipe, out=tmp_path / "b")
    assert _losses(tmp_path / "a") == _losses(tmp_path / "b")
    assert straight.pack is not None
    assert resumed.pack is not None
    assert (straight.pack / "model.safetensors").read_bytes() == (resumed.pack / "model.safetensors").read_bytes()
    assert len(list((tmp_path / "b" / "checkpoints").iterdir())) == 2
    parts = {name.partition(".")[0] for name in _tensors(tmp_path / "b" / "checkpoints" / "step-0000006")}
    assert parts == {"model", "optim", "averaged"}


def test_the_number_of_data_threads_and_the_cache_change_no_number(recipe: dict[str, Any], tmp_path: Path) -> None:
    run_recipe(recipe, out=tmp_path / "a")
    run_recipe(recipe, ["data.workers=1", "data.cache_mb=0"], tmp_path / "b")
    assert _losses(tmp_path / "a") == _losses(tmp_path / "b")


def test_another_seed_gives_other_losses(recipe: dict[str, Any], tmp_path: Path) -> None:
    run_recipe(recipe, out=tmp_path / "a")
    run_recipe(recipe, ["seed=4"], tmp_path / "b")
    assert _losses(tmp_path / "a") != _losses(tmp_path / "b")


def test_frozen_layers_stay_and_the_fast_way_through_them_changes_nothing(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    recipe["model"]["freeze_blocks"] = 2
    trainer = Trainer(load_recipe(recipe), tmp_path)
    before = {k: v.clone() for k, v in trainer.towers.state_dict().items()}
    training_mode(trainer.towers, freeze_bn=True)
    batch = next(iter(trainer.data.training(0, 1)))
    fast, *_ = trainer.computer.encode(batch)
    prefix = trainer.towers.prefix
    assert prefix
    trainer.towers.prefix = []
    slow, *_ = trainer.computer.encode(batch)
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-4)
    trainer.towers.prefix = prefix
    trainer.run(lambda step: False)
    after = trainer.towers.state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert not any(
        k.startswith(("visual.trunk.conv_stem", "visual.trunk.bn1", "visual.trunk.blocks.0")) for k in changed
    )
    assert any(k.startswith("visual.trunk.blocks.3") for k in changed)


def test_the_pack_of_a_run_is_valid_and_says_where_it_came_from(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["card"] = {"summary": "A test.", "licence": "CC0"}
    result = run_recipe(recipe, out=tmp_path / "run")
    assert result.pack is not None
    assert verify_pack(result.pack).name == "tiny"
    model = load_model(result.pack)
    assert (model.card.summary, model.card.licence, model.card.modalities) == ("A test.", "CC0", ("xray",))
    (source,) = model.card.data
    assert (source.name, source.licence, source.num_images, source.num_patients) == ("made here", "CC0", 20, 20)
    assert model.card.created_from["steps"] == 6
    assert set(model.preprocess.adapters) == {"xray"}
    for name in ("train_hashes.txt", "patient_hashes.txt"):
        assert len((result.pack / name).read_text().splitlines()) == 20
    figures = {"val_loss", "image_to_text_r1", "text_to_image_r1", "chance_r1"}
    assert set(result.validation) == {*figures, "num_images", "num_patients"}


def test_training_learns_what_the_labels_say(recipe: dict[str, Any], tmp_path: Path) -> None:
    result = run_recipe(recipe, ["train.epochs=20", "train.lr=5e-3", "train.log_every=20"], tmp_path / "run")
    log = [e for e in read_log(tmp_path / "run" / "log.jsonl") if e["kind"] == "val"]
    assert result.validation["val_loss"] < log[0]["val_loss"]
    assert len(log) == 20


def test_the_best_epoch_can_be_shipped(recipe: dict[str, Any], tmp_path: Path) -> None:
    result = run_recipe(recipe, ["train.export=best", "train.lr=0.5", "train.epochs=3"], tmp_path / "run")
    log = [e for e in read_log(tmp_path / "run" / "log.jsonl") if e["kind"] == "val"]
    best = load_file(tmp_path / "run" / "best.safetensors")
    assert result.pack is not None
    shipped = load_file(result.pack / "model.safetensors")
    assert torch.equal(shipped["visual.head.proj.weight"], best["visual.head.proj.weight"].half())
    assert len(log) == 3


def test_a_run_ends_after_validations_in_a_row_that_were_no_better_and_stays_ended(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second epoch of eight is the best; after two worse ones the run ends, also when it was stopped between."""

    def train(out: Path, losses: list[float], stop: Any = None) -> PretrainResult:
        with monkeypatch.context() as patch:
            patch.setattr(module, "validate", lambda *_, **__: {"val_loss": losses.pop(0)})
            result = run_recipe(recipe, ["train.epochs=8", "train.patience=2", "train.export=best"], out=out, stop=stop)
        assert not losses  # as many validations as were expected
        return result

    def weights(result: PretrainResult) -> bytes:
        assert result.pack is not None
        return (result.pack / "model.safetensors").read_bytes()

    whole = train(tmp_path / "whole", [1.0, 0.5, 0.7, 0.5])
    assert (whole.steps, whole.total_steps) == (12, 24)
    notes = [e["note"] for e in read_log(tmp_path / "whole" / "log.jsonl") if e["kind"] == "note"]
    assert "ended early: 2 validations in a row were no better than the best (train.patience)" in notes
    stopped = train(tmp_path / "again", [1.0, 0.5, 0.7], stop=lambda step: step == 10)
    assert (stopped.steps, stopped.pack) == (10, None)
    for left in ([0.5], []):
        again = train(tmp_path / "again", left)
        assert again.steps == 12
        assert weights(again) == weights(whole)


def test_each_step_logs_loss_rate_scale_speed_and_waiting(recipe: dict[str, Any], tmp_path: Path) -> None:
    run_recipe(recipe, out=tmp_path / "run")
    entries = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    for entry in (e for e in entries if e["kind"] == "step"):
        assert {"step", "loss", "lr", "scale", "images_s", "data_wait"} <= entry.keys()
        assert 0 <= entry["data_wait"] <= 1
        assert 1 <= entry["scale"] <= 100


def test_a_loss_that_is_not_finite_is_skipped_and_then_stops_the_run(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = StepComputer._loss
    bad = {1}
    taken = iter(range(100))

    def sometimes(self: StepComputer, batch: Any, *features: torch.Tensor) -> torch.Tensor:
        return loss(self, batch, *features) * (float("nan") if next(taken) in bad else 1.0)

    monkeypatch.setattr(StepComputer, "_loss", sometimes)
    result = run_recipe(recipe, out=tmp_path / "a")
    assert result.pack is not None
    assert [e["step"] for e in read_log(tmp_path / "a" / "log.jsonl") if e["kind"] == "skip"] == [2]
    assert all(np.isfinite(v.numpy()).all() for v in load_file(result.pack / "model.safetensors").values())
    bad.update(range(8, 12))
    with pytest.raises(MedclipError, match="3 steps in a row") as caught:
        run_recipe(recipe, ["train.max_bad_steps=2"], tmp_path / "b")
    assert caught.value.reason is Reason.NON_FINITE


def test_ctrl_c_writes_a_checkpoint_and_gives_the_handler_back(recipe: dict[str, Any], tmp_path: Path) -> None:
    outside = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it

    def press(step: int) -> bool:
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return False

    try:
        result = run_recipe(recipe, out=tmp_path / "run", stop=press)
        assert not result.finished
        assert result.steps in (2, 3)  # the signal may be noticed one step later
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, outside)
    assert run_recipe(recipe, out=tmp_path / "run").finished


def test_a_folder_with_another_run_or_something_else_is_refused(recipe: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_recipe(recipe, ["train.max_steps=1"], out)
    with pytest.raises(MedclipError, match=r"train\.lr") as caught:
        run_recipe(recipe, ["train.max_steps=1", "train.lr=7"], out)
    assert caught.value.reason is Reason.OUTPUT_IN_USE
    with pytest.raises(MedclipError, match="no-resume"):
        run_recipe(recipe, ["train.max_steps=1"], out, resume=False)
    assert run_recipe(recipe, ["train.max_steps=1", "data.workers=1"], out).steps == 1
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text").touch()
    with pytest.raises(MedclipError, match="1 other file and no training run"):
        run_recipe(recipe, (), tmp_path / "thesis")


def test_a_folder_that_another_run_is_at_work_in_is_left_alone(recipe: dict[str, Any], tmp_path: Path) -> None:
    refusals: list[MedclipError] = []

    def start_it_again(step: int) -> bool:
        if step == 2:
            draft_of(tmp_path / "run" / "checkpoint").write_text("being written")
            before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "run").iterdir()}
            with pytest.raises(MedclipError) as caught:
                run_recipe(recipe, out=tmp_path / "run")
            refusals.append(caught.value)
            assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "run").iterdir()} == before
        return step == 3

    run_recipe(recipe, out=tmp_path / "run", stop=start_it_again)
    assert [(e.reason, exit_code(e.reason)) for e in refusals] == [(Reason.BUSY, 5)]
    assert run_recipe(recipe, out=tmp_path / "run").finished  # which was let go of


def test_a_run_that_failed_before_its_first_step_leaves_the_folder_to_another_recipe(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(MedclipError, match="fewer than one batch"):
        run_recipe(recipe, ["train.batch_size=500"], out)
    # As if it had come further: a tokenizer of another size must not be taken up.
    Trainer(load_recipe(recipe, ["text.vocab_size=400"]), out)
    result = run_recipe(recipe, ["train.max_steps=1"], out, resume=False)
    assert result.finished
    fresh = run_recipe(recipe, ["train.max_steps=1"], tmp_path / "fresh")
    assert _losses(out) == _losses(fresh.out)
    assert (out / "recipe.json").read_bytes() == (fresh.out / "recipe.json").read_bytes()
    assert not [p.name for p in out.iterdir() if is_draft(p.name)]


def test_a_step_in_the_log_holds_the_folder_also_without_a_checkpoint(recipe: dict[str, Any], tmp_path: Path) -> None:
    def kill(step: int) -> bool:
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        run_recipe(recipe, out=tmp_path / "run", stop=kill)
    with pytest.raises(MedclipError, match=r"train\.lr") as caught:
        run_recipe(recipe, ["train.lr=7"], tmp_path / "run")
    assert caught.value.reason is Reason.OUTPUT_IN_USE
    assert run_recipe(recipe, out=tmp_path / "run").finished


def test_a_run_does_not_go_on_over_other_training_data(recipe: dict[str, Any], tmp_path: Path) -> None:
    run_recipe(recipe, ["train.checkpoint_every=2"], tmp_path / "run", stop=lambda step: step == 2)
    other = tmp_path / "other"
    shutil.copytree(recipe["data"]["shards"], other)
    index = json.loads((other / "index.json").read_text())
    for shard in index["shards"]:
        shard["sha256"] = shard["sha256"][::-1]  # as if a label had been changed and the shards built again
    (other / "index.json").write_text(json.dumps(index))
    with pytest.raises(MedclipError, match="mix two data sets") as caught:
        run_recipe(recipe, ["train.checkpoint_every=2", f"data.shards={other}"], tmp_path / "run")
    assert caught.value.reason is Reason.OUTPUT_IN_USE
    assert run_recipe(recipe, ["train.checkpoint_every=2"], tmp_path / "run").finished


@pytest.mark.parametrize("text", ["", '{"name": "ti', "[]", "\udcff"])
def test_a_recipe_that_was_cut_short_is_overwritten_but_never_over_checkpoints(
    recipe: dict[str, Any], tmp_path: Path, text: str
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "recipe.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    (out / "thesis").touch()
    with pytest.raises(MedclipError, match="something else"):
        run_recipe(recipe, (), out)
    (out / "thesis").unlink()
    assert run_recipe(recipe, ["train.max_steps=1"], out).finished
    (out / "recipe.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(MedclipError, match="name another folder") as caught:
        run_recipe(recipe, ["train.max_steps=1"], out)
    assert caught.value.reason is Reason.OUTPUT_IN_USE


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "meta"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_made(
    recipe: dict[str, Any], tmp_path: Path, device: str
) -> None:
    with pytest.raises(MedclipError, match=f"device '{device}' here") as caught:
        run_recipe(recipe, [f"train.device={device}"], tmp_path / "run")
    assert caught.value.reason is Reason.WRONG_USE
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("change", ["data.val_split=dev", "data.train_split=trian"])
def test_a_split_that_the_shards_lack_is_refused_before_anything_is_made(
    recipe: dict[str, Any], tmp_path: Path, change: str
) -> None:
    with pytest.raises(MedclipError, match="there is no split") as caught:
        run_recipe(recipe, [change], tmp_path / "run")
    assert change.split("=")[0] in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_a_pack_lists_what_its_training_images_look_like_where_that_was_asked_for(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    plain = run_recipe(recipe, ["train.epochs=1"], tmp_path / "plain").pack
    listed = run_recipe(recipe, ["train.epochs=1", "train.image_hashes=true"], tmp_path / "listed").pack
    assert plain is not None
    assert listed is not None
    assert not (plain / "image_hashes.txt").exists()
    assert verify_pack(listed).name == "tiny"
    assert load_model(listed).card.image_hashes_file == "image_hashes.txt"
    with ShardReader(Path(recipe["data"]["shards"]), "train") as reader:
        images = [np.asarray(reader.image(reader.members(i)).convert("L")) for i in range(len(reader))]
    assert (listed / "image_hashes.txt").read_text().split() == sorted(set(hash_lines(hash_images(images))))
    assert (plain / "model.safetensors").read_bytes() == (listed / "model.safetensors").read_bytes()


def test_a_pack_of_generic_renderings_only_claims_no_modality_that_has_an_adapter(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(12):
        Image.fromarray(rng.integers(0, 255, (48, 40), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        kind = "xray" if i % 2 else "ct"
        rows.append({"file": f"{i}.png", "patient": i, "modality": kind, "adapter": "generic", "split": "train"})
    shards = tmp_path / "shards"
    build_shards(pd.DataFrame(rows), shards, Form(key=b"k" * 32), images=tmp_path, settings=Settings(workers=1))
    changes = [f"data.shards={shards}", "data.val_split=null", "train.max_steps=1"]
    result = run_recipe(recipe, changes, tmp_path / "run")
    assert result.pack is not None
    model = load_model(result.pack)
    assert (model.card.modalities, set(model.preprocess.adapters)) == ((), {"generic"})


def test_a_split_smaller_than_a_batch_is_refused(recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="fewer than one batch of 21") as caught:
        run_recipe(recipe, ["train.batch_size=21"], tmp_path / "run")
    assert caught.value.reason is Reason.NOTHING_TO_DO


def test_training_runs_without_validation_with_hard_targets_and_in_bf16(recipe: dict[str, Any], tmp_path: Path) -> None:
    changes = ["data.val_split=null", "objective.same_label=negative", "objective.same_text=negative"]
    changes.append("objective.same_study=negative")
    result = run_recipe(recipe, [*changes, "train.precision=bf16", "train.max_steps=2"], tmp_path / "run")
    assert result.finished
    assert not result.validation


def test_the_command_prints_where_the_pack_is_and_how_to_go_on(
    recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from medclip.cli.main import main

    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    arguments = ["pretrain", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "run"), "--set", "train.max_steps=2"]
    assert main([*arguments, "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["steps"] == 2
    assert said.err == ""
    assert main(["models", "verify", str(tmp_path / "run" / "pack")]) == 0
    assert main(["models", "show", str(tmp_path / "run" / "pack")]) == 0
    assert "made here" in capsys.readouterr().out
    run = Trainer.run
    monkeypatch.setattr(Trainer, "run", lambda self, stop: run(self, lambda step: True))
    arguments[3] = str(tmp_path / "stopped")
    assert main(arguments) == 130
    assert "Run the same command again" in capsys.readouterr().out
    assert main([*arguments, "--set", "train.lrr=1"]) == 2
    assert "train.lrr: is not a key of a recipe" in capsys.readouterr().err
