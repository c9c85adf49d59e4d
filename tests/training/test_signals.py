"""Training on ECGs: with words and without, and a pack is scored with what it was trained on, to the bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import medclip
from medclip.adaptation.data.examples import Examples
from medclip.adaptation.towers.train_loop import Loop, TrainImages
from medclip.adapters.base import source_of
from medclip.adapters.registry import read_unit
from medclip.embeddings.open_embeddings import open_embeddings
from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.recording import MISSING
from medclip.models.inputs.read_pixels import pixels_of
from medclip.models.packs.pack import load_model, verify_pack
from medclip.sample import Modality
from medclip.settings import Settings
from medclip.training.loop import run_recipe
from medclip.training.recipe.schema import load_recipe
from medclip.training.result import read_log
from medclip.training.trainer import Trainer
from tests.kits.loaded_python import Programs
from tests.kits.rank_run import run_ranks
from tests.kits.signal_shards import signal_recipe, signal_shards
from tests.kits.size import is_nightly
from tests.kits.training import make_shards, masked_recipe

NUM_SAMPLES = 400  # 4 s at 100 Hz


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return signal_shards(tmp_path_factory.mktemp("signals"), missing=(3, 9))


@pytest.fixture
def recipe(shards: Path) -> dict[str, Any]:
    return signal_recipe(shards)


@pytest.fixture(scope="module")
def run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    run_recipe(signal_recipe(shards), out=out)
    return out


def _losses(out: Path) -> list[float]:
    return [e["loss"] for e in read_log(out / "log.jsonl") if e["kind"] == "step"]


def test_a_run_ends_in_a_pack_that_knows_words_and_says_how_it_takes_ecgs(run: Path) -> None:
    assert verify_pack(run / "pack").has_text
    model = load_model(run / "pack")
    taken = model.preprocess.signal
    assert taken is not None
    assert (taken.sampling_hz, taken.seconds) == (100, 4)
    assert list(model.preprocess.adapters) == ["ecg:signal"]
    assert model.card.modalities == ("ecg",)
    vectors = model.encode_image(np.zeros((2, 12, NUM_SAMPLES), np.int16))
    assert model.similarity(vectors, ["sinus rhythm"]).shape == (2, 1)
    assert model.logit_scale == pytest.approx(1 / 0.07)
    log = read_log(run / "log.jsonl")
    assert {"val_loss", "image_to_text_r1"} <= next(e for e in log if e["kind"] == "val").keys()


def test_training_and_scoring_are_shown_the_same_record(shards: Path, run: Path, tmp_path: Path) -> None:
    """A file through its adapter and the pack gives, bit for bit, the record that validation made of the shard."""
    trainer = Trainer(load_recipe(signal_recipe(shards)), tmp_path / "run")
    assert trainer.val is not None
    (batch,) = trainer.val.validation(4)
    preprocess = load_model(run / "pack").preprocess
    records = set()
    for path in sorted((shards.parent / "files").glob("*.hea"))[8:]:
        sample = read_unit(source_of(path, Settings()), Modality.ECG, preprocess.reading(Settings()))
        assert sample.provenance.preprocessing == preprocess.adapters["ecg:signal"]
        records.add(np.asarray(pixels_of(sample, preprocess)).tobytes())
    assert (batch.images.dtype, batch.images.shape) == (np.int16, (4, 12, NUM_SAMPLES))
    assert {record[None].tobytes() for record in batch.images} == records
    assert (batch.images == MISSING).all(axis=2).sum() == 3  # V4 to V6 of one
    trainer.data.close()


def test_a_pack_that_was_moved_gives_equal_vectors_of_files_of_shards_and_of_what_was_stored(
    shards: Path, run: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(run / "pack", tmp_path / "elsewhere" / "a pack")
    model = load_model(moved)
    files = sorted((shards.parent / "files").glob("*.hea"))[8:]
    of_files = np.asarray(model.embed_images(files, modality="ecg"))
    trainer = Trainer(load_recipe(signal_recipe(shards)), tmp_path / "run")
    assert trainer.val is not None
    (batch,) = trainer.val.validation(4)
    of_shards = np.asarray(model.encode_image(np.asarray(batch.images)))
    trainer.data.close()
    stored = medclip.embed(files[0].parent, tmp_path / "stored", model=moved, settings=Settings(workers=1))
    of_store = open_embeddings(stored.folder).vectors("units")
    assert (len(of_shards), len(of_store)) == (4, 12)
    assert len({vector.tobytes() for vector in of_files.round(3)}) == 4
    for other in (of_shards, of_store):
        distance = np.abs(of_files[:, None] - other[None]).max(axis=2)
        assert len(set(distance.argmin(axis=1))) == 4
        assert distance.min(axis=1).max() < 1e-5


def test_records_are_augmented_anew_each_time_and_validation_never(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["augment"] = {"signal": {"lead_dropout": 0.5, "shift": 0.2}}
    trainer = Trainer(load_recipe(recipe), tmp_path / "run")
    assert trainer.val is not None
    steps = 2 * trainer.data.steps_per_epoch
    epochs = [
        {key: row.tobytes() for key, row in zip(b.keys, b.images, strict=True)} for b in trainer.data.training(0, steps)
    ]
    first, again = ({k: v for batch in part for k, v in batch.items()} for part in (epochs[:2], epochs[2:]))
    both = first.keys() & again.keys()
    assert len(both) == 8
    assert all(first[key] != again[key] for key in both)
    one, two = (next(iter(trainer.val.validation(4))).images.copy() for _ in range(2))
    np.testing.assert_array_equal(one, two)
    trainer.data.close()


def test_hidden_patches_of_leads_are_learned_without_words(shards: Path, tmp_path: Path) -> None:
    recipe = signal_recipe(shards) | {"objective": "masked", "text": {}}
    recipe["model"] = {"signal": recipe["model"]["signal"] | {"tower": "lead_patch", "patch": 50}}
    recipe["augment"] = {"signal": {"lead_dropout": 0.2}}
    result = run_recipe(recipe, ["train.epochs=8", "train.lr=0.003"], out=tmp_path / "run")
    values = [e["val_loss"] for e in read_log(tmp_path / "run" / "log.jsonl") if e["kind"] == "val"]
    assert values[-1] < 0.95 * values[0]
    assert result.pack is not None
    assert not verify_pack(result.pack).has_text
    on = signal_recipe(shards)
    on["model"] |= {"image_weights": str(result.pack), "signal": {}}
    assert run_recipe(on, ["train.max_steps=1"], out=tmp_path / "on").pack is not None


def test_a_method_that_changes_towers_sees_each_record_changed_anew(shards: Path, run: Path) -> None:
    model = load_model(run / "pack")
    records = [
        np.asarray(
            pixels_of(
                read_unit(source_of(path, Settings()), Modality.ECG, model.preprocess.reading(Settings())),
                model.preprocess,
            )
        )
        for path in sorted((shards.parent / "files").glob("*.hea"))[:2]
    ]
    features = tuple(model.encode_image(record) for record in records)
    examples = Examples(tuple(records), features, np.array([0, 1]), ("a", "b"))
    images = TrainImages(model.clip, model, examples, Loop(steps=4, lr=1e-3), seed=0)
    first, again, other = (np.asarray(images.draw(np.arange(2), turn)) for turn in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first.dtype, first.shape) == (np.int16, (2, 12, NUM_SAMPLES))
    assert (first != other).any(axis=(1, 2)).all()
    assert images.encode(torch.arange(2), 0).shape == (2, model.dim)
    plain = TrainImages(model.clip, model, examples, Loop(steps=4, lr=1e-3, pool=0), seed=0)
    np.testing.assert_array_equal(np.asarray(plain.draw(np.arange(2), 1)), np.concatenate(records))


def test_words_answer_the_tasks_of_a_suite_without_training(run: Path, shards: Path, tmp_path: Path) -> None:
    data = tmp_path / "data" / "voltages"
    data.mkdir(parents=True)
    for path in (shards.parent / "files").glob("r00[0-3].*"):
        shutil.copy(path, data / path.name)
    rows = [f"r00{n}.hea,p{n},{'large' if n % 2 else 'normal'}" for n in range(4)]
    (data / "labels.csv").write_text("\n".join(["file,patient,label", *rows]) + "\n")
    suite = {
        "name": "voltages",
        "title": "Voltages",
        "groups": [{"id": "ecg", "title": "ECG"}],
        "sets": [
            {
                "id": "voltages",
                "group": "ecg",
                "modality": "ecg",
                "classes": [
                    {"name": "normal", "prompts": ["sinus rhythm, normal ecg"]},
                    {"name": "large", "prompts": ["left ventricular hypertrophy"]},
                ],
            }
        ],
    }
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    result = medclip.evaluate(
        tmp_path / "data",
        model=run / "pack",
        suite=tmp_path / "suite.yaml",
        out=tmp_path / "out",
        settings=Settings(workers=1),
        num_resamples=50,
    )
    (row,) = result.to_pandas().query("metric == 'accuracy'").to_dict("records")
    assert 0 <= row["value"] <= 1
    assert row["num_images"] == 4


@pytest.mark.slow
def test_two_ranks_learn_what_one_process_does(shards: Path, programs: Programs, tmp_path: Path) -> None:
    """The drop-out of the unimodal term is each rank's own, and off here; all else, augmentation too, is the same."""
    plan = signal_recipe(shards)
    plan["objective"] = {"contrastive": 2, "temperature": 0.07, "unimodal": {"weight": 2, "dropout": 0}}
    plan["train"] |= {"lr": 1e-3}
    run_recipe(plan, out=tmp_path / "one")
    ways = {"fsdp": ["train.parallel=fsdp"], "chunks": ["train.micro_batch=1"]}
    if is_nightly():
        ways["ddp"] = []
    jobs = [{"recipe": plan, "overrides": o, "out": str(tmp_path / n)} for n, o in ways.items()]
    run_ranks(2, jobs, tmp_path, programs)
    for name in ways:
        np.testing.assert_allclose(_losses(tmp_path / name), _losses(tmp_path / "one"), rtol=2e-4)


@pytest.mark.slow
def test_a_masked_tower_is_fine_tuned_and_measured_on_other_patients(tmp_path: Path) -> None:
    shards = signal_shards(tmp_path, ("train",) * 8 + ("val",) * 4 + ("test",) * 4)
    recipe = signal_recipe(shards) | {"objective": "masked", "text": {}}
    recipe["model"] = {"signal": recipe["model"]["signal"]}
    masked = medclip.pretrain(recipe, out=tmp_path / "masked")
    assert [row["metric"] for row in masked.test] == ["masked_error", "masked_gain"]
    assert masked.pack is not None
    files = sorted(path.name for path in (tmp_path / "files").glob("*.hea"))
    splits = ["train"] * 8 + ["val"] * 4 + ["test"] * 4
    table = pd.DataFrame({"file": files, "patient": files, "size": list("ab") * 8, "split": splits})
    small = {"model.signal.size": "test", "model.signal.sampling_hz": 100, "model.signal.seconds": 4}
    for model, overrides in ((masked.pack, {}), ("resnet1d", small)):
        tuned = medclip.finetune(
            table,
            "size",
            model=model,
            images=tmp_path / "files",
            out=tmp_path / Path(model).name,
            overrides={"train.epochs": 1, **overrides},
            settings=Settings(workers=1),
        )
        assert tuned.images == {"train": 8, "val": 4, "test": 4}
        assert {row["metric"] for row in tuned.test} == {"balanced_accuracy", "macro_auroc"}
        assert tuned.pack is not None
        assert load_model(tuned.pack).preprocess.signal is not None


def test_images_and_ecgs_do_not_go_together(recipe: dict[str, Any], shards: Path, tmp_path: Path) -> None:
    images = make_shards(tmp_path / "images")
    for plan, said in (
        (recipe | {"data": {"shards": str(images)}}, "hold images, and the model of the recipe takes ECGs"),
        (masked_recipe(shards), "hold ECGs, and the model of the recipe takes images"),
    ):
        with pytest.raises(MedclipError, match=said) as caught:
            run_recipe(plan, out=tmp_path / "run")
        assert caught.value.reason is Reason.RECIPE_INVALID


def test_what_is_done_to_images_is_not_done_to_ecgs(recipe: dict[str, Any]) -> None:
    with pytest.raises(MedclipError, match=r"augment\.rotate_deg is not done to ECGs"):
        load_recipe(recipe | {"augment": {"rotate_deg": 3}})


def test_a_look_at_pairs_measures_records_by_a_pack_of_signals(shards: Path, run: Path, tmp_path: Path) -> None:
    look = medclip.pairs.look(shards, tmp_path / "look", model=run / "pack", examples=2, workers=1)
    assert look.alignment is not None
    assert np.isfinite(look.alignment.cosine_N).all()
    (ecg,) = look.alignment.modalities
    assert (ecg.modality, ecg.pairs) == ("ecg", 12)
    assert not look.copies.unread
    (tmp_path / "t.csv").write_text("file,modality,caption\na.png,xray,A nodule.\n")
    with pytest.raises(MedclipError, match="takes ECGs as signals, and these pairs are of images"):
        medclip.pairs.look(tmp_path / "t.csv", tmp_path / "images", model=run / "pack", workers=1)
