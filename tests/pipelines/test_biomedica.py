"""pipelines/biomedica: made articles are figures and concepts; recipes are tagged; the suite has forty tasks."""

from __future__ import annotations

import csv
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import medclip
from medclip.evaluation.zero_shot.suite import SuiteFile, load_suite
from medclip.pairs.pile import read_pile
from medclip.settings import Settings
from medclip.training.recipe.schema import load_recipe
from tests.kits.recipe_tags import untagged
from tests.kits.stages import load_stage

FOLDER = Path(__file__).parents[2] / "pipelines" / "biomedica"
ELSEWHERE = 18


@pytest.fixture(scope="module")
def simulate() -> ModuleType:
    return load_stage(FOLDER, "simulate")


@pytest.fixture(scope="module")
def suite() -> SuiteFile:
    return load_suite(FOLDER / "suite.yaml")


@pytest.mark.parametrize("name", ["full.yaml", "smoke.yaml"])
def test_each_value_of_a_recipe_says_where_it_comes_from(name: str) -> None:
    assert not untagged(FOLDER / name)


def test_the_recipe_is_that_of_the_spec() -> None:
    recipe = load_recipe(FOLDER / "full.yaml")
    train = recipe.train
    assert (train.batch_size, train.micro_batch, train.lr, train.warmup_steps) == (8192, 512, 1e-6, 1000)
    assert (train.betas, train.weight_decay, train.epochs) == ((0.9, 0.95), 0.2, 9)
    assert recipe.data.policy == "shard_mixed"


def test_every_concept_of_the_selection_is_one_of_the_taxonomy() -> None:
    taxonomy = yaml.safe_load((FOLDER.parents[1] / "medclip/pairs/concepts/taxonomy.yaml").read_text())
    for name in ("select.yaml", "select_smoke.yaml"):
        concept = yaml.safe_load((FOLDER / name).read_text())["steps"][1]["concept"]
        assert {*concept["keep"], *concept["drop"]} <= set(taxonomy["primary"])
        assert not set(concept["keep"]) & set(concept["drop"])


def test_clinical_figures_that_may_be_used_are_kept_and_plots_are_not(simulate: ModuleType, tmp_path: Path) -> None:
    simulate.write_articles(tmp_path / "articles", 4)
    settings = Settings(workers=1, home=tmp_path / "home")
    options = {"license": "commercial", "splits": "train=1", "settings": settings}
    medclip.pairs.from_articles(tmp_path / "articles", tmp_path / "figures", **options)
    pile = read_pile(tmp_path / "figures")
    keys, texts = pile.cells("key"), pile.cells("text")
    assert len(keys) == 9, "one article of the four forbids commercial use"
    (tmp_path / "clusters").mkdir()
    numbers = [int(simulate.PLOT in text) for text in texts]
    pq.write_table(pa.table({"key": keys, "cluster": numbers}), tmp_path / "clusters" / "assignments.parquet")
    simulate.write_labels(tmp_path / "clusters", tmp_path / "figures", tmp_path / "labels.csv")
    with (tmp_path / "labels.csv").open(newline="", encoding="utf-8") as file:
        assert [row["primary"] for row in csv.DictReader(file)] == ["Clinical Imaging", "Plots and Charts"]
    labels = [simulate.TERMS[bool(number)] for number in numbers]
    pq.write_table(pa.table({"key": keys, "primary": labels}), tmp_path / "labels.parquet")
    steps = tmp_path / "select.yaml"
    steps.write_text((FOLDER / "select_smoke.yaml").read_text())
    report = medclip.pairs.select(tmp_path / "figures", steps=steps, out=tmp_path / "kept.parquet", settings=settings)
    assert report.num_kept == 6


def test_the_suite_has_forty_tasks_in_the_eight_domains(suite: SuiteFile) -> None:
    assert (len(suite.sets), len(suite.texts), len(suite.groups)) == (39, 1, 8)
    assert suite.average == "groups"
    assert len([one for one in suite.sets if one.folder is None]) == ELSEWHERE


@pytest.mark.shared
def test_every_label_of_the_shared_sets_is_a_class(suite: SuiteFile, shared: Path) -> None:
    for one in suite.sets:
        if one.folder is None:
            continue
        with (shared / "data" / one.folder / one.table.name).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        kept = [row for row in rows if all(row[name] in values for name, values in one.where.items())]
        classes = {one.class_of(row[one.table.label]) for row in kept} - {None}
        assert classes == set(range(len(one.names))), one.id
        assert one.table.patient is not None
        assert one.table.patient in rows[0]
