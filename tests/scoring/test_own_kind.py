"""The table of kinds: a kind that the library does not have is one row, and a task file names it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax

import medclip
from medclip import lazy
from medclip.errors import MedclipError, Reason
from medclip.statistics.metrics.classification import PARTS
from medclip.text.vocabulary.find_task import to_yaml
from medclip.text.vocabulary.load import load_task, parse_task
from medclip.text.vocabulary.task import VARIABLE
from medclip.text.vocabulary.task_kinds import TASK_KINDS, TaskKind, check_one_answer, kind_named, number_of_class
from tests.kits.evaluation import evaluate_suite, image
from tests.kits.scoring import every_way, make_pack

OPACITY = """
kind: at_most_one
modality: xray
classes:
  - {name: pneumonia, prompts: [pneumonia, consolidation of a lobe]}
  - {name: effusion, prompts: [pleural effusion, fluid in the pleural space]}
"""
SUITE = """
name: opacities
title: One place
groups: [{id: chest, title: Chest}]
sets:
  - id: north
    group: chest
    modality: xray
    task: opacity
    table: {label: what, patient: who}
    values: {P: pneumonia, E: effusion, N: null}
    metric: accuracy
"""


def beside_none(logits_NC: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return probabilities beside that of none of the classes, whose logit is 0."""
    none_N1 = np.zeros((len(logits_NC), 1), logits_NC.dtype)
    return softmax(np.concatenate([none_N1, logits_NC], axis=1), axis=1)[:, 1:]


ROW = TaskKind(
    "one class of several, or none of them",
    beside_none,
    number_of_class,
    check_one_answer,
    metrics=("accuracy", "macro_f1"),
    one_answer=True,
)


@pytest.fixture(params=["a row of the table", "an entry point of another package"])
def opacity(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind of this file, and a task file of it."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "opacity.yaml").write_text(OPACITY)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "tasks"))
    if request.param == "a row of the table":
        monkeypatch.setitem(TASK_KINDS, "at_most_one", ROW)
    else:
        entries = lazy._entries

        def with_row(group: str) -> dict[str, str]:
            return {**entries(group), **({"at_most_one": f"{__name__}:ROW"} if group == "medclip.task_kinds" else {})}

        monkeypatch.setattr(lazy, "_entries", with_row)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("packs") / "tiny", adapters=every_way())


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    rows = ["file,what,who"]
    for n in range(12):
        image(folder / "north" / f"{n}.png", n, grey=True)
        rows.append(f"{n}.png,{'PEN'[n % 3]},P{n // 2}")
    (folder / "north" / "labels.csv").write_text("\n".join(rows) + "\n")
    (folder / "suite.yaml").write_text(SUITE)
    return folder


@pytest.mark.usefixtures("opacity")
def test_a_task_file_of_a_kind_of_ones_own_is_scored_and_evaluated(pack: Path, films: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = medclip.score(films / "north", out, model=pack, task="opacity", modality="xray", workers=1, group_by="file")
    rows = run.scores.to_pylist()
    assert {row["kind"] for row in rows} == {"at_most_one"}
    for study in {row["study"] for row in rows}:
        logits, probabilities = np.array(
            [(row["logit"], row["probability"]) for row in rows if row["study"] == study], np.float64
        ).T
        assert probabilities == pytest.approx(np.exp(logits) / (1 + np.exp(logits).sum()), abs=1e-4)
        assert probabilities.sum() < 1
    assert "Pneumonia" in (out / "report.html").read_text(encoding="utf-8")

    result = evaluate_suite(pack, films / "suite.yaml", films, out=tmp_path / "measured", workers=1, num_resamples=50)
    (task,) = result.tasks
    assert (task.task, task.num_images, set(task.figures)) == ("opacity", 8, {"accuracy", "macro_f1"})
    assert task.figures["accuracy"].value == result.sets[0].figures["accuracy"].value
    assert json.loads((tmp_path / "measured" / "evaluate.json").read_text())["tasks"][0]["task"] == "opacity"


def test_the_probability_of_a_class_beside_others_is_the_same_by_the_rule_and_by_asking_anew() -> None:
    rng = np.random.default_rng(0)
    others_SC, logits_SM = rng.normal(size=(5, 3)), rng.normal(size=(5, 4))
    for name, row in TASK_KINDS.items():
        anew = TaskKind("", row.probabilities, row.truth, row.check, row.metrics)
        for c in range(4):
            by_rule = row.chance_of(c, logits_SM, others_SC)
            assert by_rule == pytest.approx(anew.chance_of(c, logits_SM, others_SC)), name


def test_every_kind_is_measured_by_metrics_that_there_are() -> None:
    assert {"multiclass", "multilabel", "ordinal", "risk", "map"} == set(TASK_KINDS)
    for row in TASK_KINDS.values():
        assert row.metrics or row.placed
        assert set(row.metrics) <= set(PARTS)


GRADES = """
modality: xray
classes:
  - {name: none, prompts: [clear lungs]}
  - {name: some, prompts: [some haze]}
"""


@pytest.mark.parametrize(
    ("keys", "kind", "words"),
    [
        ("kind: ordinal", "multiclass", "one step of a scale, its classes in their order"),
        ("ordered: true", "multiclass", "one step of a scale, its classes in their order"),
        ("kind: multiclass\nordered: true", "multiclass", "one step of a scale, its classes in their order"),
        ("worst_last: true", "multiclass", "one class of several"),
        ("none_prompts: [a clear film]", "multilabel", "each class there or not"),
    ],
)
def test_a_task_file_is_of_the_kind_that_it_names_or_of_the_first_that_has_its_keys(
    keys: str, kind: str, words: str
) -> None:
    task = parse_task(f"{keys}\n{GRADES}", short_name="haze")
    assert (task.kind, task.rules.words) == (kind, words)
    assert task.steps == (("none", "some") if "step" in words else ())


def test_a_scale_without_an_order_is_refused_with_what_to_write() -> None:
    assert parse_task(f"kind: multiclass\nordered: false\n{GRADES}", short_name="haze").steps == ()
    assert parse_task(f"kind: ordinal\nordered: true\n{GRADES}", short_name="haze").steps == ("none", "some")
    with pytest.raises(MedclipError, match="kind: ordinal means ordered: true, and ordered is false") as caught:
        parse_task(f"kind: ordinal\nordered: false\n{GRADES}", where="haze.yaml", short_name="haze")
    assert (caught.value.reason, caught.value.where) == (Reason.TABLE_INVALID, "haze.yaml")
    assert caught.value.hint == "Leave ordered out, or name the kind multiclass."
    with pytest.raises(MedclipError, match="ordered is 'no'"):
        parse_task(f"kind: ordinal\nordered: 'no'\n{GRADES}", short_name="haze")


def test_years_alone_make_a_risk() -> None:
    task = parse_task("modality: mammography\nhorizons_years: [1, 5]\n", short_name="relapse")
    assert (task.kind, task.has_words, task.years(["year_5"])) == ("risk", False, [5])
    truth = task.rules.truth_of(task, [{"followup_months": 30}, None, {"event_months": 3}], ["year_1", "year_5"])
    assert np.array_equal(truth, [[0, np.nan], [np.nan, np.nan], [1, 1]], equal_nan=True)


def test_structures_make_a_map_that_words_cannot_ask() -> None:
    task = parse_task(
        "kind: map\nmodality: endoscopy\nclasses:\n  - {name: polyp, prompts: [polyp]}\n", short_name="polyps"
    )
    assert (task.kind, task.has_words, task.rules.independent) == ("map", False, False)
    assert parse_task(to_yaml(task)) == task
    with pytest.raises(MedclipError, match="needs classes, the structures that it marks"):
        parse_task("kind: map\nmodality: endoscopy\n", short_name="polyps")
    with pytest.raises(MedclipError, match="no templates"):
        parse_task(
            "kind: map\nmodality: ct\ntemplates: ['{}']\nclasses:\n  - {name: rib, prompts: [rib]}\n", short_name="ribs"
        )


def test_a_kind_that_is_not_in_the_table_is_refused_with_those_that_are() -> None:
    with pytest.raises(
        MedclipError, match=r"kind: is 'both', and must be multiclass, multilabel, ordinal, risk or map"
    ) as caught:
        parse_task(f"kind: both\n{GRADES}", short_name="haze")
    assert caught.value.reason is Reason.TABLE_INVALID
    assert load_task("breast_density").rules is TASK_KINDS["ordinal"]
    with pytest.raises(MedclipError, match="no kind of task named 'both'") as caught:
        kind_named("both")
    assert "multilabel (each class there or not)" in str(caught.value.hint)
