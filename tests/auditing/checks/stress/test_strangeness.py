"""Scores of strangeness see what is strange, in each group that is large enough."""

from __future__ import annotations

import numpy as np

from medclip.auditing.checks.embeddings.vectors import unit_vectors
from medclip.auditing.checks.stress.shifts import DISTANCE, MAX_LOGIT, Condition, strangeness_rows, strangeness_scores
from medclip.auditing.disclosure import Roundings
from medclip.statistics.cohort import ALL
from tests.kits.audit_inference import cohort_of

NUM, DIMS = 200, 12
CLASSES = np.eye(2, DIMS, dtype=np.float32)
FORMS = [Condition("corruption", "same", 1), Condition("corruption", "far", 5)]


def _features() -> np.ndarray:
    rng = np.random.default_rng(0)
    clean = unit_vectors(rng.normal(size=(NUM, DIMS)) * 0.1 + CLASSES[np.arange(NUM) % 2])
    far = unit_vectors(rng.normal(size=(NUM, DIMS)))
    return np.stack([clean, unit_vectors(clean + rng.normal(size=clean.shape) * 1e-4), far])


def test_what_is_far_is_told_from_clean_and_what_is_the_same_is_not():
    cohort = cohort_of(np.arange(NUM) % 2, np.zeros(NUM), sex=["F"] * (NUM - 5) + ["M"] * 5)
    scores = strangeness_scores(_features(), CLASSES, cohort.patients_N, seed=0)
    assert {"mcm", "energy", "entropy", MAX_LOGIT, DISTANCE} == set(scores)
    places = np.arange(NUM)
    rows = strangeness_rows(
        cohort,
        scores,
        FORMS,
        {ALL: places, "sex": places},
        Roundings(),
        fewest=10,
        num_resamples=100,
        seed=0,
        step=lambda: None,
    )
    assert {r["group"] for r in rows} == {"all", "F"}
    for row in rows:
        if row["name"] == "far":
            assert row["value"] > 0.95
            assert row["fpr95"] < 0.2
        else:
            assert row["low"] <= 0.5 <= row["high"]


def test_the_distance_is_not_measured_on_the_patients_that_it_is_from():
    patients = np.arange(NUM) // 2
    distance = strangeness_scores(_features(), CLASSES, patients, seed=0)[DISTANCE]
    unknown = np.isnan(distance[0])
    assert unknown.sum() == NUM / 2
    assert (unknown[::2] == unknown[1::2]).all()


def test_one_class_has_no_softmax():
    assert set(strangeness_scores(_features(), CLASSES[:1], np.arange(NUM), seed=0)) == {MAX_LOGIT, DISTANCE}
