"""Tests of single figures: as often wrong as they say, also where a patient comes again and again."""

from __future__ import annotations

import numpy as np
import pytest

from medclip.monitoring.changes import Change, changes_of
from medclip.monitoring.read_results import UNIT_FACTS, Periods, Question, Units, Vectors, Watched


def watched(
    seed: int, *, first_patient: int, num: int, studies: int, middle: float = 0.0, turn: float = 0.0
) -> Watched:
    """One run: patients with some studies each, alike within a patient; scores about a middle, vectors turned a bit."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(first_patient, first_patient + num), studies)
    total = len(patients)
    level = np.repeat(rng.normal(size=num), studies) + 0.3 * rng.normal(size=total) + middle
    probability = 1 / (1 + np.exp(-level))
    texts = np.array([""] * total, dtype=object)
    run = np.zeros(total, np.int64)
    facts = {name: np.array(["x"] * total, dtype=object) for name in UNIT_FACTS}
    facts["scanner"] = np.repeat(np.where(rng.random(num) < 0.3, "A", "B"), studies).astype(object)
    scored = np.array(["scored"] * total, dtype=object)
    units = Units(patients, scored, texts, facts, np.full(total, np.nan), texts, run)
    names = np.array([f"{seed}-{place}" for place in range(total)], dtype=object)
    question = Question("chest", "mass", "multilabel", names, patients, probability, level, texts, run)
    vectors = np.repeat(rng.normal(size=(num, 12)), studies, axis=0) + 0.2 * rng.normal(size=(total, 12))
    vectors[:, 0] += turn
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kept = Vectors(vectors.astype(np.float32), patients, texts, run, "tower")
    return Watched(("one",), ("pack",), units, (question,), kept)


def compare(now: Watched, before: Watched) -> dict[tuple[str, str], Change]:
    changes = changes_of(now, before, Periods("run", ("one",)), num_resamples=200, seed=0)
    return {(one.about, one.measure): one for one in changes}


def test_patients_who_come_four_times_do_not_make_chance_look_like_a_change() -> None:
    refused: dict[str, list[bool]] = {"mean": [], "share in the tail": [], "share": []}
    for seed in range(120):
        now = watched(2 * seed, first_patient=0, num=40, studies=4)
        before = watched(2 * seed + 1, first_patient=100, num=60, studies=4)
        now, before = (Watched(w.runs, w.packs, w.units, w.questions, None) for w in (now, before))
        for (_, measure), one in compare(now, before).items():
            refused[measure].append(one.p <= 0.05)
    rates = {measure: np.mean(values) for measure, values in refused.items()}
    assert all(len(values) == 120 for values in refused.values())
    assert max(rates.values()) <= 0.10, rates
    assert rates["mean"] >= 0.01, rates


def test_an_interval_of_a_mean_s_difference_holds_the_true_one_and_its_effect_is_in_standard_deviations() -> None:
    now = watched(1, first_patient=0, num=400, studies=1, middle=1.0)
    before = watched(2, first_patient=1000, num=400, studies=1)
    one = compare(now, before)["scores", "mean"]
    assert one.low < one.value - one.reference < one.high
    spread = before.questions[0].probability_N.std()
    assert one.effect == pytest.approx((one.value - one.reference) / spread)
    assert one.size == "large"


def test_the_tail_is_that_of_the_reference() -> None:
    now = watched(1, first_patient=0, num=300, studies=1, middle=1.0)
    before = watched(2, first_patient=1000, num=300, studies=1)
    one = compare(now, before)["scores", "share in the tail"]
    limit = np.quantile(before.questions[0].probability_N, 0.95)
    assert one.reference == pytest.approx(0.05, abs=0.01)
    assert one.value == pytest.approx((now.questions[0].probability_N > limit).mean())


def test_vectors_that_turned_are_told_from_the_reference_and_others_are_not() -> None:
    before = watched(2, first_patient=1000, num=80, studies=1)
    turned = compare(watched(1, first_patient=0, num=80, studies=1, turn=2.0), before)[
        "embeddings", "AUROC of a classifier"
    ]
    alike = [
        compare(
            watched(100 + 2 * seed, first_patient=0, num=60, studies=1),
            watched(101 + 2 * seed, first_patient=1000, num=60, studies=1),
        )["embeddings", "AUROC of a classifier"]
        for seed in range(12)
    ]
    assert turned.value > 0.8
    assert turned.size == "large"
    assert "maximum mean discrepancy: p" in turned.note
    assert sum(bool(one.size) for one in alike) <= 2


def test_a_patient_on_both_sides_is_one_patient() -> None:
    now = watched(1, first_patient=0, num=60, studies=2)
    one = compare(now, now)["scores", "mean"]
    assert one.difference == 0.0
    assert one.size == ""


def test_p_values_are_adjusted_over_all_figures_but_those_of_vectors_among_themselves() -> None:
    now = watched(1, first_patient=0, num=60, studies=1, middle=0.4)
    before = watched(2, first_patient=1000, num=60, studies=1)
    changes = list(compare(now, before).values())
    others = [one for one in changes if one.about != "embeddings"]
    assert len(others) == 3
    ordered = sorted(others, key=lambda one: one.p)
    ratios = [one.p * len(ordered) / rank for rank, one in enumerate(ordered, start=1)]
    expected = [min(1.0, *ratios[place:], 1.0) for place in range(len(ratios))]
    assert [one.p_adjusted for one in ordered] == pytest.approx(expected)
    assert any(one.p_adjusted > one.p for one in others)
    (vectors,) = [one for one in changes if one.about == "embeddings"]
    assert vectors.p_adjusted == vectors.p


@pytest.mark.parametrize(("num_now", "num_before"), [(19, 60), (60, 19)])
def test_a_side_of_fewer_than_twenty_patients_is_not_compared_however_many_studies_they_have(
    num_now: int, num_before: int
) -> None:
    now = watched(1, first_patient=0, num=num_now, studies=4)
    assert not compare(now, watched(2, first_patient=1000, num=num_before, studies=4))
