"""The table that medclip-mini 2 learns from: who is held out, what captions may say, and what they must not betray."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from medclip.shards.writing.splits import split_of
from medclip.shards.writing.table import read_shard_table
from medclip.text.captions.quoted_words import betrayal_in
from medclip.text.vocabulary.load import load_task
from medclip.training.recipe.schema import load_recipe
from tests.kits.stages import load_stage

FOLDER = Path(__file__).parents[2] / "pipelines" / "mini"
NAMES = ("prepare", "shared_sets", "square_films", "table", "measuring")
SPLITS = {"train": 0.65, "val": 0.10, "test": 0.25}
SOURCES = {
    "nih_cxr",
    "covid_cxr",
    "csdi_fundus",
    "mini_mias",
    "cbis_ddsm",
    "brain_mri",
    "glas_colon",
    "ecg_sheet",
    "cdd_cesm",
    "ddsm_4view",
    "isic2017",
    "bus_bra",
    "breast_us",
    "medpix2",
    "vqa_rad",
    "idrid",
    "knee_kl",
    "opg_dental",
    "monuseg_he",
    "kvasir_seg",
}
"""Without the films of children, of which the table has squares alone."""


@pytest.fixture(autouse=True)
def import_paths_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other pipelines have stages of the same name."""
    monkeypatch.setattr(sys, "path", [str(FOLDER), str(FOLDER.parent), *sys.path])
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)


def stage(name: str) -> ModuleType:
    return load_stage(FOLDER, name)


@pytest.fixture(scope="module")
def kept() -> dict[str, list[dict[str, str]]]:
    return {}


@pytest.fixture
def rows(shared: Path, kept: dict[str, list[dict[str, str]]]) -> list[dict[str, str]]:
    """The whole table but the records of PTB-XL."""
    if "rows" not in kept:
        kept["rows"] = stage("table").table_of(shared / "data")
    return kept["rows"]


def side(row: dict[str, str]) -> str:
    return row.get("split") or split_of(row["patient"], SPLITS, 0)


@pytest.mark.shared
def test_every_set_of_images_that_may_is_in_the_table_and_no_other(rows: list[dict[str, str]]) -> None:
    assert {row["source"] for row in rows} == SOURCES
    assert all(row["license"] and row["patient"] and row["modality"] for row in rows)
    assert not [row for row in rows if "ND" in row["license"].replace("-", " ").split()]
    assert {row["source"] for row in rows if row["modality"] == "ct"} == {"medpix2", "vqa_rad"}
    kinds = Counter(row["modality"] for row in rows)
    modalities = {"xray", "mammography", "fundus", "dermatology", "ultrasound", "pathology", "ct", "mri", "ecg"}
    assert set(kinds) == modalities | {"endoscopy"}


@pytest.mark.shared
def test_whom_the_pack_of_today_holds_out_is_held_out(rows: list[dict[str, str]], shared: Path) -> None:
    today = {row["patient"]: side(row) for row in stage("prepare").rows(shared / "data")}
    here = {row["patient"]: side(row) for row in rows}
    trained = {patient for patient, where in here.items() if where == "train"}
    assert not [patient for patient in trained if today.get(patient, "train") != "train"]


@pytest.mark.shared
def test_normal_films_of_other_sites_are_kept_out_of_training(rows: list[dict[str, str]], shared: Path) -> None:
    with (shared / "data/covid_cxr/labels.csv").open(encoding="utf-8") as file:
        normal = {f"covid:{r['group_id']}" for r in csv.DictReader(file) if r["finding"] == "No Finding"}
    own = [row for row in rows if row["patient"] in normal]
    assert len({row["patient"] for row in own}) >= 8
    assert {side(row) for row in own} == {"test"}


@pytest.mark.shared
def test_every_label_is_a_class_of_the_vocabulary_and_most_rows_have_one(rows: list[dict[str, str]]) -> None:
    labels = {name: value for row in rows for name, value in row.items() if name.startswith("label:") and value}
    for name, value in labels.items():
        task = load_task(name.split(":")[1])
        assert task.class_named(name.split(":")[2] if name.count(":") == 2 else value)
    with_labels = Counter(row["source"] for row in rows if any(n.startswith("label:") and v for n, v in row.items()))
    assert set(with_labels) == SOURCES - {"cbis_ddsm", "kvasir_seg"}


@pytest.mark.shared
def test_of_films_of_covid_cxr_that_are_trained_on_nobody_says_that_they_have_pneumonia(
    rows: list[dict[str, str]],
) -> None:
    of = [row for row in rows if row["source"] == "covid_cxr" and row.get("adapter") != "generic"]
    pneumonia = "label:chest_xray_findings:pneumonia"
    assert len([row for row in of if side(row) == "train" and row.get("label:chest_xray_findings:covid_19")]) > 100
    assert not [row for row in of if side(row) != "test" and row.get(pneumonia)]
    assert [row[pneumonia] for row in of if row.get(pneumonia)].count("0") == 10


@pytest.mark.shared
def test_chest_films_of_children_are_squares_of_one_size_and_of_known_patients(shared: Path, tmp_path: Path) -> None:
    rows = stage("table").table_of(shared / "data", tmp_path, ("kermany_cxr",))
    rows = [row for row in rows if row["source"] == "kermany_cxr"]
    films = {row["file"] for row in rows}
    assert len(films) == 382
    assert {Path(file).parent for file in films} == {tmp_path / "kermany_cxr"}
    for file in sorted(films)[:20]:
        with Image.open(file) as film:
            assert film.size == (192, 192)
    labelled = [row for row in rows if row.get("adapter") != "generic"]
    assert Counter(row["label:chest_xray_findings:pneumonia"] for row in labelled) == {"0": 194, "1": 188}
    assert any(row.get("label:body_region") == "thorax" for row in labelled)


def test_a_source_that_is_left_out_is_tested_with_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = stage("table")
    monkeypatch.setattr(table, "table_of", lambda *_: [*made_up("a", 4), *made_up("b", 4)])
    table.main([str(tmp_path), str(tmp_path / "t.csv"), "--leave-out", "b"])
    with (tmp_path / "t.csv").open() as file:
        sides = {(row["source"], row["split"]) for row in csv.DictReader(file)}
    assert sides == {("a", ""), ("b", "test")}


@pytest.mark.shared
def test_a_pack_teaches_from_its_own_sources_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = stage("table")
    rows = [{"source": name, "patient": f"{name}:1", "file": f"{name}.png"} for name in ("nih_cxr", "kvasir_seg")]
    monkeypatch.setattr(table, "table_of", lambda *_: rows)
    table.main([str(tmp_path), str(tmp_path / "table.csv"), "--known-to", "medclip-mini"])
    written = csv.DictReader((tmp_path / "table.csv").read_text(encoding="utf-8").splitlines())
    assert [row["source"] for row in written] == ["nih_cxr"]


def test_no_own_text_names_where_it_is_from(rows: list[dict[str, str]]) -> None:
    texts = [text for row in rows for text in row.get("captions", "").split("\n") if text]
    assert len(texts) > 4000
    assert not [text for text in texts if betrayal_in(text)]
    assert not [text for text in texts if re.search(r"\b(?:19|20)\d\d\b|\?|http", text)]
    quoted = {row["source"] for row in rows if row.get("captions")}
    assert quoted == {"csdi_fundus", "cdd_cesm", "medpix2", "vqa_rad"}


@pytest.mark.shared
@pytest.mark.slow
def test_captions_of_breast_ultrasound_tell_its_two_sources_no_better_than_chance(
    rows: list[dict[str, str]], tmp_path: Path
) -> None:
    stage("table").write_table([row for row in rows if row["modality"] == "ultrasound"], tmp_path / "t.csv")
    check = stage("caption_check")
    assert check.main(str(tmp_path / "t.csv"), str(tmp_path / "out.json")) == 0
    figures = json.loads((tmp_path / "out.json").read_text())["findings"]
    assert {f["finding"] for f in figures} == {f"breast_ultrasound_malignancy: {c}" for c in ("benign", "malignant")}
    assert all(f["captions"]["low"] <= 0.5 for f in figures)


def made_up(source: str, number: int, **known: str) -> list[dict[str, str]]:
    fixed = {"modality": "ultrasound", "source": source, "label:breast_ultrasound_malignancy": "benign"}
    return [
        {"file": f"{source}{n}.png", "patient": f"{source}:{n}"} | fixed | {k: v for k, v in known.items() if v}
        for n in range(number)
    ]


def test_what_one_of_two_sources_does_not_know_is_said_of_neither() -> None:
    table = stage("table")
    rows = table.alike(
        [
            *made_up("a", 40, age="50", sex="F", captions="Oval mass seen here."),
            *made_up("b", 40, sex="F"),
            *made_up("c", 5, sex="F"),
        ]
    )
    assert {row["age"] for row in rows if row["source"] != "c"} == {""}
    assert {row["captions"] for row in rows if row["source"] != "c"} == {""}
    assert {row["sex"] for row in rows} == {"F"}, "both know it, and five rows are too few to decide"
    alone = table.alike(made_up("a", 40, age="50", captions="Oval mass seen here."))
    assert {(row["age"], row["captions"]) for row in alone} == {("50", "Oval mass seen here.")}


@pytest.mark.parametrize(
    ("known", "leaks"),
    [({}, False), ({"age": "70", "sex": "M"}, True), ({"captions": "An oval mass in fatty tissue."}, False)],
)
def test_what_one_source_alone_states_is_found_to_tell_it(tmp_path: Path, known: dict[str, str], leaks: bool) -> None:
    """Words that are quoted are measured, and do not end the run."""
    check = stage("caption_check")
    rows = [*made_up("a", 200, **known), *made_up("b", 200)]
    stage("table").write_table(rows, tmp_path / "t.csv")
    (cell,) = check.cells_of(read_shard_table(tmp_path / "t.csv").rows)
    figures = check.measure(cell)
    assert (figures["chance"], figures["num_patients"]) == (0.5, 400)
    assert (figures["captions"]["low"] > 0.5) is bool(known)
    assert figures["tells_more_than_labels"] is leaks
    assert check.main(str(tmp_path / "t.csv"), str(tmp_path / "out.json")) == int(leaks)


@pytest.mark.parametrize(("known", "leaks"), [({}, False), ({"age": "70", "sex": "M"}, True)])
def test_what_one_source_alone_states_is_found_where_its_labels_tell_it_without_an_error(
    tmp_path: Path, known: dict[str, str], leaks: bool
) -> None:
    check = stage("caption_check")
    labels = "label:chest_xray_findings:"
    film = {"modality": "xray", f"{labels}pneumonia": "1", "label:breast_ultrasound_malignancy": ""}
    more = {f"{labels}effusion": "0", f"{labels}mass": "0", f"{labels}nodule": "1"}
    rows = [row | film | more for row in made_up("a", 200, **known)] + [row | film for row in made_up("b", 200)]
    stage("table").write_table(rows, tmp_path / "t.csv")
    (cell,) = (c for c in check.cells_of(read_shard_table(tmp_path / "t.csv").rows) if c.finding.endswith("pneumonia"))
    figures = check.measure(cell)
    assert figures["labels"]["low"] > 0.95, "or captions could be judged by all labels"
    assert figures["common_labels"]["value"] == pytest.approx(0.5, abs=0.05)
    assert figures["tells_more_than_labels"] is leaks
    assert check.stated_by(check.cut(cell.rows)[0].record) == {"chest_xray_findings:pneumonia"}


def test_the_recipe_balances_sources_and_looks_at_figures_within_them() -> None:
    recipe = load_recipe(FOLDER / "recipe.yaml")
    assert recipe.data.policy == "balanced"
    assert recipe.objective.other_source == "ignored"
    assert recipe.train.best_by == "within_sources"
    assert all(load_task(name).has_words for name in recipe.train.zero_shot)


def test_a_table_at_small_size_has_something_to_train_validate_and_test_with() -> None:
    rows = [*made_up("a", 200), *made_up("b", 200)]
    few = stage("table").few_of(rows, 8)
    assert Counter((row["source"], side(row)) for row in few) == {
        (source, name): number for source in "ab" for name, number in (("train", 4), ("val", 2), ("test", 2))
    }
