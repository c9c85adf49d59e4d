from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from medclip.auditing.checks.shortcuts.masked_pairs import LOST, MEAN_CHANGE, align, compare
from medclip.errors import MedclipError
from medclip.statistics.cohort import Cohort
from tests.kits.shortcuts import bootstrap, chests


def logit(p: np.ndarray) -> np.ndarray:
    return np.log(p / (1 - p))


def masked_copies(cohort: Cohort, *, shortcut: float, fill: float = 0.0, seed: int = 0) -> np.ndarray:
    """Score copies without the device: what the device added is gone; the fill itself may move the score too."""
    noise = np.random.default_rng(seed).normal(0, 0.1, len(cohort.patients_N))
    device = cohort.columns["device"]
    return 1 / (1 + np.exp(-(logit(cohort.labels[0].score_N) - shortcut * device + fill + noise)))


def measured(cohort: Cohort, masked: np.ndarray, **more: Any) -> dict[tuple[str, str], dict[str, Any]]:
    device = cohort.columns["device"]
    rows = compare(cohort, cohort.labels[0], masked, device, bootstrap(cohort, 200), threshold=0.5, **more)
    return {(r["stratum"], r["metric"]): r for r in rows}


def test_a_model_that_looks_at_the_device_loses_score_and_patients_when_it_is_masked() -> None:
    cohort = chests(0, shortcut=1.5)
    masked = masked_copies(cohort, shortcut=1.5, fill=-0.1)
    rows = measured(cohort, masked)
    for kind in ("positives", "negatives"):
        assert rows[f"{kind} with device", MEAN_CHANGE]["high"] < -0.1
        assert rows[f"{kind}: with − without", MEAN_CHANGE]["high"] < 0
        assert "was part of what the model saw" in rows[f"{kind}: with − without", MEAN_CHANGE]["note"]
        assert "Control" in rows[f"{kind} without device", MEAN_CHANGE]["note"]
    made = cohort.labels[0]
    found = (made.truth_N == 1) & (cohort.columns["device"] == 1) & (made.score_N >= 0.5)
    lost = rows["positives with device", LOST]
    assert lost["value"] == pytest.approx((masked[found] < 0.5).mean())
    assert lost["n"] == found.sum()
    assert lost["low"] > 0.25 > rows["positives without device", LOST]["high"]
    assert "no longer found when the device is taken out" in lost["note"]


def test_a_model_that_looks_at_the_disease_does_not_and_the_fill_is_told_apart() -> None:
    wrong = 0
    for seed in range(20):
        cohort = chests(50 + seed, num_patients=200)
        rows = measured(cohort, masked_copies(cohort, shortcut=0, seed=seed))
        wrong += rows["positives: with − without", MEAN_CHANGE]["p"] < 0.05
        assert abs(rows["positives with device", MEAN_CHANGE]["value"]) < 0.02
    assert wrong <= 4  # 1 in 20 by chance; 5 or more happens once in 400 times
    cohort = chests(99)
    rows = measured(cohort, masked_copies(cohort, shortcut=0, fill=-0.5))
    assert rows["negatives with device", MEAN_CHANGE]["high"] < -0.02
    assert abs(rows["negatives: with − without", MEAN_CHANGE]["value"]) < 0.03


def test_mean_changes_are_those_of_the_rows() -> None:
    cohort = chests(1, num_patients=100)
    masked = masked_copies(cohort, shortcut=1)
    masked[::4] = np.nan
    rows = measured(cohort, masked)
    made = cohort.labels[0]
    part = ~np.isnan(masked) & (made.truth_N == 0) & (cohort.columns["device"] == 0)
    row = rows["negatives without device", MEAN_CHANGE]
    assert row["value"] == pytest.approx((masked - made.score_N)[part].mean())
    assert (row["n"], row["n_pos"]) == (part.sum(), 0)


def test_strata_with_few_patients_are_not_shown_and_none_at_all_is_said() -> None:
    cohort = chests(2, num_patients=200)
    masked = masked_copies(cohort, shortcut=1)
    device = cohort.columns["device"]
    masked[device == 0] = np.nan
    rows = measured(cohort, masked)
    assert {s for s, _ in rows} == {"positives with device", "negatives with device"}
    masked[:] = np.nan
    (row,) = measured(cohort, masked).values()
    assert "fewer than 10 patients" in row["note"]
    high = dataclasses.replace(cohort.labels[0], score_N=np.full(len(device), 0.1))
    rows_ = compare(cohort, high, np.full(len(device), 0.1), device, bootstrap(cohort, 20), threshold=0.5)
    assert "found at the threshold" in next(r for r in rows_ if r["metric"] == LOST)["note"]


def test_copies_are_found_by_their_keys_in_any_order() -> None:
    cohort = chests(3, num_patients=30)
    order = np.random.default_rng(0).permutation(len(cohort.keys))[:-5]
    scores = masked_copies(cohort, shortcut=1)
    made = dataclasses.replace(cohort.labels[0], score_N=scores[order])
    copies = dataclasses.replace(cohort, labels=(made,), keys=tuple(cohort.keys[i] for i in order))
    aligned = align(cohort, copies, "Pneumothorax")
    np.testing.assert_array_equal(aligned[order], scores[order])
    assert np.isnan(aligned).sum() == 5
    with pytest.raises(MedclipError, match="no scores of 'Effusion'"):
        align(cohort, copies, "Effusion")
    with pytest.raises(MedclipError, match="no key is in both"):
        align(cohort, dataclasses.replace(copies, keys=tuple(f"z{key}" for key in copies.keys)), "Pneumothorax")
