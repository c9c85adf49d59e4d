"""pipelines/breakhis/colon.py: what chance and a baseline are where patients are left out, and few shots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.kits.breakhis import module_of

colon, figures = (module_of(n) for n in ("colon", "figures"))


def tiles(of_patient: dict[str, tuple[int, ...]], each: int = 3) -> Any:
    """Return tiles of patients with the grades that are named, so many of each."""
    rows = [(patient, grade) for patient, grades in of_patient.items() for grade in grades for _ in range(each)]
    files = tuple(Path(f"images/{n}.jpg") for n in range(len(rows)))
    return colon.Tiles(files, tuple(p for p, _ in rows), np.array([g for _, g in rows]))


EIGHT = {"a": (0,), "b": (1,), "c": (0, 1), "d": (0,), "e": (1,), "f": (1,), "g": (0, 1), "h": (0,)}


def test_who_has_both_grades_has_both_when_they_are_dealt_anew_and_as_many_patients_have_each() -> None:
    own = tiles(EIGHT)
    groups = np.array([f"{p}{g}" for p, g in zip(own.patients, own.truth_N, strict=True)])
    dealt_before = set()
    for seed in range(20):
        dealt = colon.shuffled(own, seed)
        assert dealt.patients == own.patients
        grade_of = {group: set(dealt.truth_N[groups == group].tolist()) for group in groups}
        assert all(len(grades) == 1 for grades in grade_of.values())
        assert grade_of["c0"] | grade_of["c1"] == grade_of["g0"] | grade_of["g1"] == {0, 1}
        assert sum(grade_of[group] == {1} for group in ("a0", "b1", "d0", "e1", "f1", "h0")) == 3
        dealt_before.add(tuple(dealt.truth_N.tolist()))
    assert len(dealt_before) > 10


def test_the_commonest_grade_of_the_others_is_wrong_where_patients_have_one_grade_each() -> None:
    tested = colon.commonest(tiles({"a": (0,), "b": (1,), "c": (0,), "d": (1,)}))
    assert figures.measure_tested(tested, num_resamples=50)["image_rate"].value == 0.0


def test_shots_tell_grades_apart_that_features_tell_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colon, "DRAWS", 3)
    own = tiles(EIGHT)
    rng = np.random.default_rng(0)
    features_ND = np.stack([own.truth_N + rng.normal(0, 0.05, len(own.truth_N)), rng.normal(size=30)], axis=1)
    one, four = (colon.few_shot(own, features_ND, shots, 50)["auroc"]["value"] for shots in (1, 4))
    assert 0.6 < one < four  # of two tiles the column of noise tells as much as the other
    assert four > 0.95


@pytest.mark.parametrize(("told", "least", "most"), [(True, 0.99, 1.0), (False, 0.0, 0.8)])
def test_chance_is_what_grades_that_were_dealt_anew_reach(told: bool, least: float, most: float) -> None:
    own = tiles(EIGHT)
    features_ND = np.random.default_rng(1).normal(size=(30, 3))
    if told:
        features_ND[:, 0] += 10 * own.truth_N
    values = colon.by_chance(own, features_ND, 12)
    assert least <= values["auroc"] <= most
    assert values["mean"] < 0.75
    assert (values["as_high"] <= 3) == told
