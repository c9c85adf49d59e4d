"""Images and the words of their source, looked for by each other in a suite, beside the card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from medclip.errors import MedclipError, Reason
from medclip.evaluation.label_retrieval import retrieval
from medclip.evaluation.zero_shot import set_run
from medclip.evaluation.zero_shot.figures import BesideCard, card_lines
from medclip.models.inputs.preprocess import Preprocess
from medclip.models.inputs.read_pixels import read_pixels
from medclip.models.packs.card import SplitFigures, TaskCard, read_card
from medclip.models.packs.pack import load_model, update_pack
from medclip.sample import Modality
from medclip.settings import Settings
from tests.kits.evaluation import evaluate_suite, image
from tests.kits.scoring import every_way, make_pack

NUM = 24
QUICK = {"workers": 1, "num_resamples": 50}
SUITE = """
name: words
title: Films with words
groups: [{id: chest, title: Chest}]
sets:
  - id: pneumonia
    group: chest
    modality: xray
    folder: films
    task: chest_xray_findings
    finding: pneumonia
    table: {label: ill, patient: who}
    values: {"1": present, "0": absent}
    metric: auroc
texts:
  - {id: words, folder: films, modality: xray, text: words, table: {patient: who}}
  - {id: few, folder: films, modality: xray, text: words, where: {ill: ["1"]}, table: {patient: who}}
"""


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("packs") / "tiny", adapters=every_way())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = ["file,ill,who,words"]
    for n in range(NUM):
        image(folder / "films" / f"{n}.png", n, grey=True)
        rows.append(f"{n}.png,{n % 2},P{n // 2},a shadow of {n} mm")
    (folder / "films" / "labels.csv").write_text("\n".join(rows) + "\n")
    (folder / "suite.yaml").write_text(SUITE)
    return folder


def test_texts_find_their_images_as_often_as_their_vectors_say(pack: Path, place: Path) -> None:
    result = evaluate_suite(pack, place / "suite.yaml", place, **QUICK)
    words, few = result.texts
    assert (words.num_images, words.num_texts, words.num_patients, words.problems) == (NUM, NUM, NUM // 2, {})
    model = load_model(pack)
    preprocess: Preprocess = model.preprocess
    shown = [
        read_pixels(place / "films" / f"{n}.png", Modality.XRAY, preprocess, Settings()).images for n in range(NUM)
    ]
    vectors = model.encode_image(np.concatenate([views for views in shown if views is not None]))
    texts, whose = [f"a shadow of {n} mm" for n in range(NUM)], [n // 2 for n in range(NUM)]
    by_text, by_image = retrieval(
        vectors, model.encode_text(texts), texts, texts, image_patients=whose, text_patients=whose
    )
    for way, one in (("text_to_image", by_text), ("image_to_text", by_image)):
        for k in (1, 5, 10):
            figure = words.figures[f"{way}_r{k}"]
            assert figure["value"] == pytest.approx(one.recall[k], abs=1e-4)
            assert figure["low"] <= figure["value"] <= figure["high"]
            assert figure["chance"] == pytest.approx(k / (NUM - 1), abs=1e-3)  # the other film of a patient is aside
    assert few.figures == {}
    assert "12 different texts; 20 are needed" in "\n".join(result.lines())


def test_what_is_on_the_card_stands_beside_and_what_was_not_measured_is_named(
    pack: Path, place: Path, tmp_path: Path
) -> None:
    listed = shutil.copytree(pack, tmp_path / "listed")
    plain = evaluate_suite(listed, place / "suite.yaml", place, **QUICK)
    area, recall = plain.tasks[0].figures["auroc"].value, plain.texts[0].figures["text_to_image_r5"]
    split = SplitFigures(
        split="test",
        shards="0",
        num_images=NUM,
        num_patients=NUM,
        num_in_training=0,
        problems={},
        figures={f"retrieval, {source}": {"text_to_image_r5": recall} for source in ("films", "elsewhere")},
    )
    figure = {"value": area - 0.25, "low": 0.1, "high": 0.9, "chance": 0.5}
    sources = {
        "pneumonia": {"verdict": "not testable across sources", "sources": ["films"], "figures": {"pooled": figure}}
    }
    tasks = {
        "chest_xray_findings": TaskCard.model_validate(
            {"classes": ["pneumonia"], "metrics": {"auroc": {"pneumonia": {"zero_shot": figure}}}, "sources": sources}
        ),
        "breast_density": TaskCard(classes=("fatty", "dense_glandular")),
    }
    card = read_card(listed)
    update_pack(listed, card=card.model_copy(update={"tasks": tasks, "held_out": split}))
    result = evaluate_suite(listed, place / "suite.yaml", place, **QUICK)
    beside = result.beside_card
    assert beside is not None
    assert beside.num_compared == 3  # the area, the same by source, and the recall
    assert beside.difference == pytest.approx(0.25, abs=1e-3)
    assert beside.furthest.startswith("chest_xray_findings:pneumonia")
    assert beside.left == ("breast_density", "retrieval, elsewhere")
    lines = "\n".join(result.lines())
    assert "3 figures measured again; the furthest is +0.25" in lines
    assert "On the card and not measured here: breast_density and retrieval, elsewhere." in lines


def test_a_card_that_is_met_says_so_without_a_name_of_what_is_left() -> None:
    (line,) = card_lines(BesideCard(12, "skin_lesion, macro auroc", 0.0003, ()))
    assert line.endswith("the furthest is +0.0003 from the card (skin_lesion, macro auroc).")


def test_texts_that_are_done_are_not_measured_again(
    pack: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate_suite(pack, place / "suite.yaml", place, out=tmp_path / "out", **QUICK)

    def refuse(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(set_run, "_measure_texts", refuse)
    again = evaluate_suite(pack, place / "suite.yaml", place, out=tmp_path / "out", **QUICK)
    assert again.texts == first.texts
    stored = json.loads((tmp_path / "out" / "evaluate.json").read_text())
    assert stored["texts"][0]["figures"] == first.texts[0].figures


def test_texts_alone_can_be_asked_for(pack: Path, place: Path, tmp_path: Path) -> None:
    result = evaluate_suite(pack, place / "suite.yaml", place, out=tmp_path / "out", dataset=["words"], **QUICK)
    assert (result.sets, result.not_asked, [one.id for one in result.texts]) == ((), ("pneumonia", "few"), ["words"])
    assert "texts of" in "\n".join(result.lines())
    assert not (tmp_path / "out" / "predictions.parquet").exists()


def test_an_image_that_several_sets_ask_about_is_read_once(
    pack: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    reader = set_run.UnitReader.read

    def counting(self, units, step, **options):
        read.extend(unit.path for unit in units)
        return reader(self, units, step, **options)

    monkeypatch.setattr(set_run.UnitReader, "read", counting)
    result = evaluate_suite(pack, place / "suite.yaml", place, **QUICK)
    assert len(read) == len(set(read)) == NUM
    assert (result.sets[0].num_read, result.texts[0].num_images, result.texts[1].num_images) == (NUM, NUM, NUM // 2)


def test_texts_whose_modality_nobody_says_are_refused(pack: Path, place: Path, tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(SUITE.replace("folder: films, modality: xray, text", "folder: films, text"))
    with pytest.raises(MedclipError, match="name their modality") as caught:
        evaluate_suite(pack, tmp_path / "suite.yaml", place, **QUICK)
    assert caught.value.reason is Reason.TABLE_INVALID
