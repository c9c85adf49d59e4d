"""The audit of gradings in ordered classes: how they are read, and what is said by group."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

import medclip
from medclip.auditing.groups.grades_and_risks import ordinal_rows
from medclip.auditing.options import MeasureOptions
from medclip.errors import MedclipError
from medclip.reports.audit.report import render
from medclip.reports.audit.sections.ordinal import answers, findings
from medclip.statistics.cohort import Attribute, Cohort, Ordinal
from medclip.statistics.resampling.weights import draw_weights
from tests.kits.size import sized

QUICK: dict[str, Any] = {"num_resamples": 200, "num_permutations": 100}
DENSITY = {"density": ["A", "B", "C", "D"]}


def films(patients: int = 200, *, noise: float = 0.5, down: float = 0.0, seed: int = 0) -> Any:
    """Make graded films; those of women are graded lower by `down`."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(patients), 2)
    truth = rng.integers(0, 4, patients)[who]
    sex = np.where(rng.random(patients) < 0.5, "F", "M")[who]
    grade = truth + noise * rng.normal(size=len(who)) - down * (sex == "F")
    closeness = np.exp(-2 * (grade[:, None] - np.arange(4)) ** 2)
    table = pd.DataFrame(closeness / closeness.sum(axis=1, keepdims=True), columns=list("ABCD"))
    return table.assign(
        image=[f"i{k}" for k in range(len(who))],
        patient=[f"P{p}" for p in who],
        sex=sex,
        density=np.array(list("ABCD"))[truth],
        density_predicted=np.array(list("ABCD"))[np.clip(np.round(grade), 0, 3).astype(int)],
    )


def figures(result, group: str = "all") -> dict[str, dict]:
    return {r["metric"]: r for r in result.ordinal if r["group"] == group and not r.get("reference")}


def audited(table: Any, labels: Any = None, **more: Any):
    return medclip.audit(table, labels, by=["sex"], ordinal=DENSITY, **(QUICK | more))


def test_a_column_of_predicted_classes_is_found_by_its_name_and_measured_by_group():
    table = films()
    own = table[table.sex == "F"]
    result = audited(table.drop(columns=list("ABCD")))
    row = figures(result, "F")["kappa_quadratic"]
    assert row["value"] == pytest.approx(cohen_kappa_score(own.density, own.density_predicted, weights="quadratic"))
    assert row["low"] < row["value"] < row["high"] < 1
    assert (row["n"], row["n_patients"]) == (len(own), own.patient.nunique())
    assert "agreement by group" in render(result)
    assert answers(result)[0].startswith("density, 200 patients")


def test_probabilities_of_every_class_give_the_likeliest_or_the_one_nearest_to_the_mean():
    table = films()
    scores, labels = table[["image", *"ABCD"]], table[["image", "patient", "sex", "density"]]
    result = audited(scores, labels)
    likeliest = np.array(list("ABCD"))[table[list("ABCD")].to_numpy().argmax(axis=1)]
    assert figures(result)["exact"]["value"] == pytest.approx((likeliest == table.density).mean())
    mean = np.floor(table[list("ABCD")].to_numpy() @ np.arange(4) + 0.5).astype(int)
    nearest = figures(audited(scores, labels, grade="expected"))["exact"]["value"]
    assert nearest == pytest.approx((np.array(list("ABCD"))[mean] == table.density).mean())


def test_a_group_that_is_graded_lower_is_a_finding_of_missed_disease():
    result = audited(films(300, down=0.7).drop(columns=list("ABCD")))
    assert figures(result, "F")["one_down"]["value"] > 2 * figures(result, "M")["one_down"]["value"]
    sentences = [one.sentence for one in findings(result)]
    assert any("graded one class too low more often in F (sex)" in sentence for sentence in sentences)
    assert not findings(audited(films(300).drop(columns=list("ABCD"))))


def test_a_group_that_is_too_small_has_no_number():
    table = films()
    table.loc[table.patient.isin(["P0", "P1"]), "sex"] = "O"
    row = figures(audited(table.drop(columns=list("ABCD"))), "O")["exact"]
    assert row["flag"] == "suppressed"
    assert row.get("value") is None
    assert row.get("n") is None


def test_other_classes_do_not_count_and_numbers_are_compared_as_numbers():
    table = films(noise=0.0).drop(columns=list("ABCD"))
    grades = {"A": "1.0", "B": "2", "C": "3", "D": "0"}
    coded = table.assign(density=table.density.map(grades), density_predicted=table.density_predicted.map(grades))
    result = medclip.audit(coded, by=["sex"], ordinal={"density": ["1", "2", "3"]}, **QUICK)
    assert figures(result)["exact"]["value"] == 1
    assert any("of another class" in note for note in result.notes)


@pytest.mark.parametrize(
    ("classes", "drop", "words"),
    [
        (["A", "B"], [], "no three ordered classes"),
        (["A", "B", "A"], [], "no three ordered classes"),
        (["x", "y", "z"], [], "none of which is x, y or z"),
        (["A", "B", "C", "D"], ["density_predicted", "A"], "A has no score"),
    ],
)
def test_what_cannot_be_read_is_refused(classes: list[str], drop: list[str], words: str):
    with pytest.raises(MedclipError) as caught:
        medclip.audit(films(40).drop(columns=drop), by=["sex"], ordinal={"density": classes}, **QUICK)
    assert words in str(caught.value)


@pytest.mark.slow
def test_intervals_hold_the_true_value_with_40_patients_in_a_group():
    held: dict[str, list[bool]] = {}
    for seed in range(number := sized(200, least=40)):
        rows = {(r["group"], r["metric"]): r for r in _rows(40, seed) if not r.get("reference")}
        for metric, true in _TRUE.items():
            row = rows["a", metric]
            held.setdefault(metric, []).append(row["low"] <= true <= row["high"])
    for metric, hits in held.items():
        assert np.mean(hits) >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / number), metric


_TRUE = {"kappa_quadratic": 0.794, "exact": 0.710, "one_up": 0.179, "one_down": 0.109}
"""Of 240,000 patients of `_rows`."""


def _rows(patients: int, seed: int) -> list[dict]:
    """Make two groups with 1 to 3 images a patient, alike within one, and audit them."""
    rng = np.random.default_rng([5, seed])
    who = np.repeat(np.arange(2 * patients), rng.integers(1, 4, 2 * patients))
    truth = rng.normal(size=2 * patients)[who] + 0.3 * rng.normal(size=len(who))
    apart = (rng.normal(size=2 * patients)[who] + rng.normal(size=len(who))) * np.sqrt(0.5)
    cuts = np.quantile(np.random.default_rng(1).normal(size=10000) * np.sqrt(1.09), [0.1, 0.5, 0.9])
    grades = [np.searchsorted(cuts, x).astype(np.int16) for x in (truth, truth + 0.5 * apart + 0.1)]
    halves = Attribute("g", ("a", "b"), (who >= patients).astype(np.int16), True)
    cohort = Cohort(who.astype(np.int32), (), (halves,), ordinals=(Ordinal("d", tuple("ABCD"), *grades),))
    return ordinal_rows("m", cohort, draw_weights(2 * patients, 300, seed=seed), MeasureOptions())
