"""Sets that ask a task of the vocabulary, of several sources, on the files that a pack was measured on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from medclip import score
from medclip.errors import MedclipError, Reason
from medclip.evaluation.zero_shot.suite import load_suite, with_vocabulary
from medclip.models.packs.card import TaskCard, read_card
from medclip.models.packs.manifest import file_sha256
from medclip.models.packs.pack import find_pack, update_pack
from medclip.models.packs.word_control import WordControl
from medclip.sample import Modality
from medclip.statistics.metrics.by_source import WITHIN_ONLY
from tests.kits.evaluation import evaluate_suite, image
from tests.kits.scoring import every_way, make_pack

QUICK = {"workers": 1, "num_resamples": 50}
SUITE = """
name: sources
title: Two places
groups: [{id: chest, title: Chest}]
sets:
  - id: north
    group: chest
    modality: xray
    task: chest_xray_findings
    finding: pneumonia
    table: {label: Pneumonia, patient: who}
    values: {"1": present, "0": absent}
    held_out: true
    metric: auroc
  - id: south
    group: chest
    modality: xray
    task: chest_xray_findings
    finding: pneumonia
    table: {label: what, patient: who, is_patient: false}
    where: {kind: [film]}
    values: {ill: present, healthy: absent}
    others: leave_out
    metric: auroc
  - id: views
    group: chest
    modality: generic
    folder: north
    task: modality
    constant: xray
    table: {patient: who}
    metric: accuracy
"""


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("packs") / "tiny", adapters=every_way())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    north, south = ["file,Pneumonia,who"], ["file,what,kind,who"]
    for n in range(16):
        image(folder / "north" / f"{n}.png", n, grey=True)
        north.append(f"{n}.png,{n % 2},N{n // 2}")
        image(folder / "south" / f"{n}.png", 100 + n, grey=True)
        south.append(f"{n}.png,{('ill', 'healthy', 'todo')[n % 3]},{'slice' if n == 15 else 'film'},S{n}")
    (folder / "north" / "labels.csv").write_text("\n".join(north) + "\n")
    (folder / "south" / "labels.csv").write_text("\n".join(south) + "\n")
    (folder / "suite.yaml").write_text(SUITE)
    return folder


def test_the_vocabulary_is_asked_as_a_run_of_score_asks_it(pack: Path, place: Path, tmp_path: Path) -> None:
    evaluate_suite(pack, place / "suite.yaml", place, out=tmp_path / "out", dataset=["north"], **QUICK)
    rows = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    run = score(
        place / "north",
        tmp_path / "scored",
        model=pack,
        workers=1,
        modality="xray",
        group_by="file",
        task="chest_xray_findings",
    )
    studies = {row["sha256"]: row["study"] for row in run.files.to_pylist()}
    logits = {row["study"]: row["logit"] for row in run.scores.to_pylist() if row["class"] == "pneumonia"}
    for row in rows:
        absent, present = row["scores"]
        assert present - absent == pytest.approx(logits[studies[row["sha256"]]], abs=0.02)


def test_rows_are_chosen_by_their_cells_and_labels_that_are_not_named_are_left_out(pack: Path, place: Path) -> None:
    result = evaluate_suite(pack, place / "suite.yaml", place, dataset=["south"], **QUICK)
    (south,) = result.sets
    assert (south.num_images, south.num_left_out) == (10, 6)  # 5 of "todo", one slice that is ill
    assert south.images_per_class == (5, 5)


def test_a_group_that_is_no_patient_is_resampled_and_not_counted(pack: Path, place: Path) -> None:
    result = evaluate_suite(pack, place / "suite.yaml", place, **QUICK)
    north, south, _ = result.sets
    assert (north.num_patients, south.num_patients) == (8, None)
    (pneumonia, modality) = result.tasks
    assert (pneumonia.num_patients, modality.num_patients) == (None, 8)
    assert pneumonia.by_source["within north"]["num_patients"] == 8
    assert pneumonia.by_source["within south"]["num_patients"] is None
    assert pneumonia.by_source["positives of north, negatives of south"]["num_patients"] is None


def test_a_task_of_two_sources_is_measured_within_each_and_across_them(pack: Path, place: Path, tmp_path: Path) -> None:
    result = evaluate_suite(pack, place / "suite.yaml", place, out=tmp_path / "out", **QUICK)
    pneumonia, modality = result.tasks
    north, south, _ = result.sets
    assert pneumonia.by_source["within north"]["value"] == north.figures["auroc"].value
    assert pneumonia.by_source["within south"]["value"] == south.figures["auroc"].value
    assert {"positives of north, negatives of south", "source alone", "across sources"} <= set(pneumonia.by_source)
    assert modality.verdict == "not testable across sources"
    assert pneumonia.word_control is not None
    assert pneumonia.word_control.own_words.value == pneumonia.by_source["within sources"]["value"]
    assert pneumonia.word_control.num_images == north.num_read + south.num_read
    assert pneumonia.word_control.unrelated.num == 24
    assert modality.word_control is None, "there is one answer"
    lines = "\n".join(result.lines())
    assert "chest_xray_findings:pneumonia" in lines
    assert "AUROC positives of south, negatives of north" in lines
    stored = json.loads((tmp_path / "out" / "evaluate.json").read_text())
    assert stored["tasks"][0]["verdict"] == pneumonia.verdict
    assert WordControl.from_json(stored["tasks"][0]["word_control"]) == pneumonia.word_control
    again = evaluate_suite(pack, place / "suite.yaml", place, out=tmp_path / "out", **QUICK)
    assert again.tasks == result.tasks, "kept sets have what the control of a task is made of"
    assert "other_words" not in pq.read_table(tmp_path / "out" / "predictions.parquet").column_names


def test_a_task_of_which_nothing_can_be_read_has_no_figure_and_no_word_control(
    pack: Path, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "north").mkdir()
    (tmp_path / "north" / "labels.csv").write_text("file,Pneumonia,who\ngone.png,1,N1\nlost.png,0,N2\n")
    result = evaluate_suite(pack, place / "suite.yaml", tmp_path, dataset="north", **QUICK)
    assert result.sets[0].problems == {"missing_file": 2}
    assert result.sets[0].word_control is None
    assert all(task.word_control is None for task in result.tasks)


def test_what_stands_beside_the_card_is_of_the_sources_that_its_figure_is_of(
    pack: Path, place: Path, tmp_path: Path
) -> None:
    listed = shutil.copytree(pack, tmp_path / "listed")
    own = {"value": 0.75, "low": 0.6, "high": 0.9, "chance": 0.5}
    whole = evaluate_suite(pack, place / "suite.yaml", place, dataset=["north", "south"], **QUICK).tasks[0].by_source
    for over_all, name in ((own, "within sources"), (own | {"value": 0.7}, "within north")):
        sources = {"verdict": WITHIN_ONLY, "sources": ["north"], "figures": {"within sources": over_all}}
        task = TaskCard.model_validate(
            {
                "classes": ["pneumonia"],
                "metrics": {"auroc": {"pneumonia": {"zero_shot": own}}},
                "sources": {"pneumonia": sources},
            }
        )
        update_pack(listed, card=read_card(listed).model_copy(update={"tasks": {"chest_xray_findings": task}}))
        result = evaluate_suite(listed, place / "suite.yaml", place, dataset=["north", "south"], **QUICK)
        assert result.tasks[0].figures["auroc"].value == pytest.approx(whole[name]["value"], abs=1e-4)
    assert whole["within sources"]["value"] != whole["within north"]["value"]


def test_only_files_that_the_card_lists_are_measured_where_a_set_asks_for_them(
    pack: Path, place: Path, tmp_path: Path
) -> None:
    listed = shutil.copytree(pack, tmp_path / "listed")
    hashes = [file_sha256(place / "north" / f"{n}.png") for n in range(8)]
    card = read_card(listed)
    figure = {"value": 0.75, "low": 0.6, "high": 0.9, "chance": 0.5}
    task = TaskCard(classes=("pneumonia",), metrics={"auroc": {"pneumonia": {"zero_shot": figure}}})
    changes = {"test_hashes_file": "test_hashes.txt", "tasks": card.tasks | {"chest_xray_findings": task}}
    update_pack(
        listed, card=card.model_copy(update=changes), extra_files={"test_hashes.txt": "\n".join(hashes).encode()}
    )
    result = evaluate_suite(listed, place / "suite.yaml", place, dataset=["north", "south"], **QUICK)
    north, south = result.sets
    assert (north.num_images, north.num_left_out, south.num_images) == (8, 8, 10)
    assert not any("does not list the files" in note for note in north.notes)
    (pneumonia,) = result.tasks
    assert pneumonia.on_card["auroc"]["value"] == 0.75
    assert "0.750 (0.600 to 0.900)" in "\n".join(result.lines())
    without = evaluate_suite(pack, place / "suite.yaml", place, dataset=["north"], **QUICK)
    assert without.sets[0].num_images == 16
    assert any("does not list the files" in note for note in without.sets[0].notes)


def test_data_without_any_file_that_a_pack_was_measured_on_is_refused(pack: Path, place: Path, tmp_path: Path) -> None:
    listed = shutil.copytree(pack, tmp_path / "listed")
    card = read_card(listed).model_copy(update={"test_hashes_file": "test_hashes.txt"})
    update_pack(listed, card=card, extra_files={"test_hashes.txt": b"0" * 64})
    with pytest.raises(MedclipError, match="none of the files here") as caught:
        evaluate_suite(listed, place / "suite.yaml", place, dataset=["north"], **QUICK)
    assert caught.value.reason is Reason.NOTHING_TO_DO


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("    finding: pneumonia\n", "", "name one of its findings"),
        ("    task: modality\n", "    task: modality\n    finding: xray\n", "it has no findings"),
        ("    task: chest_xray_findings\n", "", "two classes or more are needed, or a task"),
    ],
)
def test_a_set_that_asks_what_its_task_is_not_is_refused(
    pack: Path, place: Path, tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    (tmp_path / "suite.yaml").write_text(SUITE.replace(old, new, 1))
    with pytest.raises(MedclipError, match=sentence):
        evaluate_suite(pack, tmp_path / "suite.yaml", place, **QUICK)


def test_the_classes_of_a_task_are_those_of_the_card_and_sets_of_others_are_left_out(pack: Path) -> None:
    card = read_card(pack)
    task = TaskCard(classes=("mri", "fundus"))
    suite = with_vocabulary(load_suite("mini"), card.model_copy(update={"tasks": {"modality": task}}))
    of_modality = {part.id: part.names for part in suite.sets if part.task == "modality"}
    assert set(of_modality.values()) == {("mri", "fundus")}
    assert "modality_brain_mri" in of_modality
    assert "modality_nih_cxr" not in of_modality
    (covid,) = [part for part in suite.sets if part.id == "modality_covid_cxr"]
    assert covid.values == {"X-ray": None, "CT": None}


def test_every_task_and_class_of_the_suite_of_the_built_in_pack_is_in_the_vocabulary() -> None:
    suite = load_suite("mini")
    filled = with_vocabulary(suite, type("NoCard", (), {"tasks": {}}))
    assert len(filled.sets) == len(suite.sets)
    assert all(part.held_out and len(part.names) > 1 for part in filled.sets)


def test_a_task_of_ordered_classes_has_figures_of_their_order(pack: Path, place: Path, tmp_path: Path) -> None:
    steps = ("almost_entirely_fatty", "scattered_fibroglandular", "heterogeneously_dense", "extremely_dense")
    rows = "".join(f"{n}.png,{steps[n % 4]},N{n // 2}\n" for n in range(16))
    (tmp_path / "breasts").mkdir()
    for n in range(16):
        shutil.copy(place / "north" / f"{n}.png", tmp_path / "breasts")
    (tmp_path / "breasts" / "labels.csv").write_text(f"file,label,who\n{rows}")
    (tmp_path / "suite.yaml").write_text(
        "name: breasts\ntitle: Breasts\ngroups: [{id: breast, title: Breast}]\nsets:\n"
        "  - {id: breasts, group: breast, modality: mammography, task: breast_composition, "
        f"values: {{{', '.join(f'{step}: {step}' for step in steps)}}}, "
        "table: {patient: who}, metric: accuracy}\n"
    )
    (task,) = evaluate_suite(pack, tmp_path / "suite.yaml", tmp_path, **QUICK).tasks
    assert {"spearman", "kappa_quadratic", "pairwise_accuracy"} <= task.figures.keys()
    assert task.figures["spearman"].low < task.figures["spearman"].value < task.figures["spearman"].high


def test_a_set_of_one_class_is_asked_where_the_card_has_figures_of_its_modality() -> None:
    card = read_card(find_pack("medclip-mini"))
    region = card.tasks["body_region"]
    thorax = "region_nih_cxr"
    for modalities, is_asked in ((("ct", "mri"), False), (("ct", "xray"), True), ((), True)):
        of = region.model_copy(update={"modalities": tuple(Modality(name) for name in modalities)})
        asked = with_vocabulary(load_suite("mini"), card.model_copy(update={"tasks": {"body_region": of}}))
        assert (thorax in {part.id for part in asked.sets}) is is_asked, modalities
