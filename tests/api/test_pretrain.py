"""A run measures its own test split once, and what it found is in the pack's card, the report and the result."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import medclip
from medclip.api import pretrain as module
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.models.packs.pack import pack_card, verify_pack
from medclip.shards.reading.samples import ShardReader
from tests.kits.pages import lines_of
from tests.kits.progress import Recorded
from tests.kits.training import NUM_TRAIN, make_shards, masked_recipe, tiny_recipe

ROW = {"source": "made here", "license": "CC0", "patient": "p", "modality": "xray", "names_patient": True}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("shards"), num_test=16)


@pytest.fixture(scope="module")
def recipe(shards: Path) -> dict[str, Any]:
    return tiny_recipe(shards)


@pytest.fixture(scope="module")
def result(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> medclip.PretrainResult:
    return medclip.pretrain(recipe, out=tmp_path_factory.mktemp("run"))


def _bytes_of(pack: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in pack.iterdir()}


def test_figures_of_the_test_split_are_in_the_card_of_a_sealed_pack(result: medclip.PretrainResult) -> None:
    assert result.pack is not None
    verify_pack(result.pack)
    held = pack_card(result.pack).held_out
    assert held is not None
    assert (held.split, held.num_images, held.num_patients, held.num_in_training) == ("test", 16, 8, 0)
    assert list(result.test) == held.rows()
    for row in result.test:
        assert row["low"] <= row["value"] <= row["high"]
        assert 0 < row["chance"] <= 1
    assert {row["task"] for row in result.test} == {"chest_xray_findings", "retrieval"}
    assert not pack_card(result.pack).tasks  # nothing is offered for scoring that somebody has not looked at


def test_the_card_is_shown_with_the_figures(result: medclip.PretrainResult, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", str(result.pack)]) == 0
    shown = capsys.readouterr().out
    assert "Figures on the run's own split test: 16 images of 8 patients" in shown
    assert re.search(r"retrieval +image_to_text_r1 +0\.\d+ +0\.\d+ to [01]\.\d+ +0\.\d+", shown)


def test_the_report_has_the_figures_and_stands_in_the_folder(result: medclip.PretrainResult) -> None:
    assert result.report is not None
    assert result.report == result.out / "report.html"
    text = " ".join(lines_of(result.report.read_text(encoding="utf-8")))
    (area,) = (row for row in result.test if row["metric"] == "macro_auroc")
    assert f"{area['value']:.3f}" in text
    assert "16 images of 8 patients in the split test" in text


def test_a_run_that_was_killed_before_it_measured_does_so_when_called_again(
    recipe: dict[str, Any], result: medclip.PretrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "_measure", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            medclip.pretrain(recipe, out=tmp_path)
    assert pack_card(tmp_path / "pack").held_out is None
    again = medclip.pretrain(recipe, out=tmp_path)
    assert again.pack is not None
    assert result.pack is not None
    assert _bytes_of(again.pack) == _bytes_of(result.pack)
    assert again.test == result.test


def test_a_head_that_only_teaches_stays_behind_and_may_be_asked_for_later(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    head = {"task": "chest_xray_findings", "classes": ["pneumonia"], "in_pack": False}
    taught = recipe | {"objective": {"supervised": head}}
    run = medclip.pretrain(taught, out=tmp_path)
    assert run.pack is not None
    verify_pack(run.pack)
    assert (tmp_path / "heads.safetensors").is_file()
    assert not (run.pack / "adapted.safetensors").exists()
    card = pack_card(run.pack)
    assert (card.tasks, card.adapted, card.limits) == ({}, None, ())
    weights = (run.pack / "model.safetensors").read_bytes()
    again = medclip.pretrain(taught, overrides={"objective.supervised.in_pack": True}, out=tmp_path)
    assert again.pack is not None
    assert (again.pack / "model.safetensors").read_bytes() == weights
    assert set(pack_card(again.pack).tasks) == {"chest_xray_findings"}
    assert (again.pack / "adapted.safetensors").is_file()


def test_ranks_after_the_first_neither_measure_nor_write(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    result = medclip.pretrain(recipe, out=tmp_path, overrides=["train.max_steps=1"])
    assert (result.report, result.test) == (None, ())
    assert not (tmp_path / "report.html").exists()


def test_a_split_that_is_named_must_be_there_and_null_measures_none(recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="there is no split 'exam'") as caught:
        medclip.pretrain(recipe, out=tmp_path / "a", overrides=["data.test_split=exam"])
    assert caught.value.reason is Reason.WRONG_USE
    with pytest.raises(MedclipError, match="trained or chosen on"):
        medclip.pretrain(recipe, out=tmp_path / "a", overrides=["data.test_split=val"])
    assert not (tmp_path / "a").exists()
    one = ["train.max_steps=1", "data.test_split=null"]
    result = medclip.pretrain(recipe, out=tmp_path / "b", overrides=one)
    assert result.test == ()
    assert result.report is not None
    assert "No test split was measured" in result.report.read_text(encoding="utf-8")


def test_the_pack_that_a_run_began_with_is_measured_beside(
    recipe: dict[str, Any], result: medclip.PretrainResult, tmp_path: Path
) -> None:
    again = {key: recipe[key] for key in ("name", "seed", "data", "train")} | {"model": {"start": str(result.pack)}}
    told = Recorded()
    second = medclip.pretrain(again, out=tmp_path, overrides=["train.max_steps=1"], progress=told)
    before = {row["metric"]: row["value"] for row in result.test}
    start = {
        row["metric"].removesuffix(" start"): row["value"] for row in second.test if row["metric"].endswith("start")
    }
    assert start == before
    assert second.report is not None
    assert "Before" in lines_of(second.report.read_text(encoding="utf-8"))
    assert [name for name, _, _ in told.stages] == [
        "Training",
        "Measuring on the split test",
        "Measuring on the split test, start",
    ]


def test_a_model_of_native_aspect_ratios_is_measured_on_such_images(recipe: dict[str, Any], tmp_path: Path) -> None:
    own = recipe | {"model": recipe["model"] | {"image_tower": "test_vit", "size_px": 64, "native_aspect": True}}
    result = medclip.pretrain(own, out=tmp_path, overrides=["train.max_steps=1"])
    assert {row["task"] for row in result.test} == {"chest_xray_findings", "retrieval"}


def test_a_test_split_that_was_trained_on_is_no_failure_of_the_run(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ShardReader, "provenance", lambda self: iter([{**ROW, "files": ("a",)}] * len(self)))
    told = Recorded()
    result = medclip.pretrain(recipe, out=tmp_path, overrides=["train.max_steps=1"], progress=told)
    assert result.finished
    assert result.test == ()
    assert any("are of patients or files that the model was trained on" in note for note in told.notes)


def test_a_card_claims_no_number_of_patients_where_shards_name_none(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = ShardReader.provenance
    monkeypatch.setattr(
        ShardReader, "provenance", lambda self: ({**row, "names_patient": False} for row in known(self))
    )
    result = medclip.pretrain(recipe, out=tmp_path, overrides=["train.max_steps=1"])
    assert result.pack is not None
    card = pack_card(result.pack)
    assert [source.num_patients for source in card.data] == [None]
    assert card.held_out is not None
    assert card.held_out.num_patients is None
    assert "intervals are over images" in card.held_out.notes[0]
    assert (result.pack / "patient_hashes.txt").read_text()  # a copy of a tar is found by them


def test_json_has_the_figures_and_the_report(
    recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(recipe))
    assert main(["pretrain", str(file), "--out", str(tmp_path / "run"), "--set", "train.max_steps=1", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["report"] == str(tmp_path / "run" / "report.html")
    assert {"task", "metric", "value", "low", "high", "chance"} <= values["test"][0].keys()


def test_a_run_without_words_is_measured_on_what_it_learned(tmp_path: Path) -> None:
    recipe = masked_recipe(make_shards(tmp_path, num_test=8))
    result = medclip.pretrain(recipe, out=tmp_path / "run")
    assert [(row["task"], row["metric"]) for row in result.test] == [
        ("hidden_pixels", "masked_error"),
        ("hidden_pixels", "masked_gain"),
    ]
    assert result.test[0]["low"] < result.test[0]["value"] < result.test[0]["high"]
    assert result.pack is not None
    held_out = pack_card(result.pack).held_out
    assert held_out is not None
    assert held_out.num_images == 8
    assert result.report is not None
    assert "Squared error of hidden pixels" in result.report.read_text()
    again = medclip.pretrain(recipe, out=tmp_path / "run")
    assert again.test == result.test


def test_a_run_that_draws_views_together_says_what_became_of_them_and_of_privacy(
    result: medclip.PretrainResult, tmp_path: Path
) -> None:
    def columns(i: int) -> dict[str, str]:
        return {"view": "PA" if i % 3 else "AP", **({"patient": f"p{i // 4}"} if i < NUM_TRAIN else {})}

    shards = make_shards(tmp_path / "films", num_test=48, columns=columns)
    plan = {key: value for key, value in tiny_recipe(shards).items() if key not in ("model", "text")}
    plan |= {"model": {"start": str(result.pack)}, "objective": {"losses": {"views": {"object": "patient"}}}}
    run = medclip.pretrain(plan, out=tmp_path / "run", overrides=["train.max_steps=1"])
    of_views = {row["metric"]: row for row in run.test if row["task"] == "views"}
    names = {"spread", "distance", "recall_across_views", "re_identification", "linkage", "probe projection"}
    assert set(of_views) == {f"{name} {whose}" for name in names for whose in ("start", "zero_shot")}
    assert of_views["spread zero_shot"]["value"] != of_views["spread start"]["value"]
    assert any(note.startswith("After training: re-identification, ") for note in run.test_notes)
    assert run.report is not None
    lines = lines_of(run.report.read_text(encoding="utf-8"))
    assert any("of the same patient first, by the model that the run began with" in line for line in lines)
    assert not any("no better than chance" in line and "Distance between views" in line for line in lines)
    assert any("Views that find another view of their thing first (R@1)" in line for line in lines)
