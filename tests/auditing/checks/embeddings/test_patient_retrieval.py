"""Patient re-identification: planted patients, what is no answer, matched galleries, and the verdict."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from medclip.auditing.checks.embeddings.patient_retrieval import ANYBODY, Images, rank, reident, verdict
from medclip.auditing.checks.embeddings.vectors import unit_vectors
from medclip.auditing.checks.embeddings.verification import Linkage
from medclip.errors import MedclipError, Reason
from medclip.statistics.estimate import Estimate
from tests.kits.audit_embeddings import named, noise, people


def test_average_precision_of_ranks_one_and_three_by_hand() -> None:
    found = rank(np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[1, 0, 1, 0]], bool), np.array([[0, 1, 0, 1]], bool))
    assert found.precision_Q[0] == pytest.approx((1 + 2 / 3) / 2)
    assert found.first_Q.tolist() == [1]
    assert found.chance_Q.tolist() == [0.5]


def test_average_precision_is_that_of_scikit_learn_also_with_ties() -> None:
    rng = np.random.default_rng(0)
    distance, right = rng.integers(0, 8, (20, 15)).astype(float), rng.random((20, 15)) < 0.3
    found = rank(distance, right, ~right)
    expected = [average_precision_score(right[q], -distance[q]) for q in found.queries_Q]
    np.testing.assert_allclose(found.precision_Q, expected)


def test_queries_without_an_answer_are_skipped() -> None:
    found = rank(np.zeros((3, 2)), np.array([[0, 0], [1, 0], [1, 1]], bool), np.array([[1, 1], [0, 1], [0, 0]], bool))
    assert found.queries_Q.tolist() == [1]
    assert len(rank(np.zeros((1, 2)), np.zeros((1, 2), bool), np.ones((1, 2), bool)).queries_Q) == 0


def test_a_tower_that_knows_the_patient_is_identifiable() -> None:
    patients = people(120)
    rows = reident(
        np.eye(120, dtype=np.float32)[patients], Images(patients, np.arange(len(patients))), num_replicates=50
    )
    assert named(rows, "CMC@1")["value"] == 1
    assert named(rows, "mAP")["value"] == 1
    assert named(rows, "verdict")["note"].startswith("identifiable: 100.0%")


def test_noise_is_not_shown_and_as_good_as_chance() -> None:
    patients = people(200, seed=1)
    rows = reident(noise(len(patients)), Images(patients, np.arange(len(patients))), num_replicates=100)
    assert named(rows, "verdict")["note"].startswith("not shown")
    area = named(rows, "verification AUROC")
    assert area["low"] < 0.5 < area["high"]
    assert named(rows, "mAP")["value"] < 0.03
    assert all(r["what"] == "reident" for r in rows)
    assert [r["name"] for r in rows] == [
        "mAP",
        "CMC@1",
        "CMC@5",
        "CMC@10",
        "mAP, re-ranked",
        "CMC@1, re-ranked",
        "verification AUROC",
        "equal error rate",
        "linkage at FPR 0.001",
        "verdict",
    ]


def test_the_same_study_the_same_capture_and_the_same_file_are_no_answers() -> None:
    patients = np.repeat(np.arange(30), 4)
    studies = [s for _ in range(30) for s in ("1", "1", "2", "3")]
    captures = [f"{p}/{c}" for p in range(30) for c in (1, 2, 2, 3)]
    hashes = [f"{p}/{h}" for p in range(30) for h in (1, 2, 3, 1)]
    vectors = np.eye(30, dtype=np.float32)[patients]
    note = named(reident(vectors, Images(patients, studies, captures, hashes), num_replicates=10), "verdict")["note"]
    assert "of 90 pairs" in note  # of six pairs: less 0-1 (study), 1-2 (capture), 0-3 (file)
    note = named(reident(vectors, Images(patients, studies), num_replicates=10), "verdict")["note"]
    assert "of 150 pairs" in note
    note = named(reident(vectors, Images(patients), num_replicates=10), "verdict")["note"]
    assert "of 180 pairs" in note
    assert "names no studies" in note
    unknown = ["" if s == "3" else s for s in studies]
    note = named(reident(vectors, Images(patients, unknown), num_replicates=10), "verdict")["note"]
    assert "of 60 pairs" in note


def test_a_tower_that_knows_sex_and_age_only_fades_in_the_matched_gallery() -> None:
    rng = np.random.default_rng(0)
    patients = people(150, seed=2)
    sex, age = rng.integers(0, 2, 150)[patients], rng.uniform(20, 80, 150)[patients]
    angle = age / 60 * np.pi + np.pi * sex
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1) + rng.normal(0, 0.2, (len(patients), 2))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    images = Images(patients, np.arange(len(patients)), same={"sex": sex}, age_years_N=age)
    rows = reident(vectors, images, num_replicates=30)
    matched = "same sex, age within 5 years"
    assert named(rows, "verification AUROC", ANYBODY)["value"] > 0.85
    assert named(rows, "verification AUROC", matched)["value"] < 0.75
    # who does not state an age is in no matched gallery
    rows = reident(vectors, Images(patients, np.arange(len(patients)), age_years_N=np.full(len(patients), np.nan)))
    assert named(rows, "verdict", "age within 5 years")["note"].startswith("cannot tell")


def test_what_is_set_apart_neither_hides_nor_makes_a_link() -> None:
    patients = np.repeat(np.arange(40), 4)
    device = np.tile([0, 1, 0, 1], 40) + 2 * patients % 7
    vectors = np.concatenate([0.2 * np.eye(40)[patients], np.eye(9)[device]], axis=1).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    images = Images(patients, np.arange(160), apart={"device": device, "year": ["2020"] * 160})
    rows = reident(vectors, images, num_replicates=20)
    assert "of 240 pairs" in named(rows, "verdict", ANYBODY)["note"]
    assert "of 160 pairs" in named(rows, "verdict", "other device")["note"]
    areas = [named(rows, "verification AUROC", of)["value"] for of in (ANYBODY, "other device")]
    assert areas[0] < 0.95
    assert areas[1] == 1.0
    assert named(rows, "verdict", "other year")["note"].startswith("cannot tell: fewer than 10 patients")


def test_a_patient_who_links_only_through_a_third_study_is_found_by_re_ranking() -> None:
    # studies of a patient lie along a line, so that the ends are nearer to others than to each other
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(60), 12)
    ends = unit_vectors(rng.normal(size=(120, 24)))
    share = np.tile(np.linspace(0, 1, 12), 60)[:, None]
    vectors = unit_vectors(ends[2 * patients] * (1 - share) + ends[2 * patients + 1] * share)
    rows = reident(vectors, Images(patients, np.arange(len(patients))), num_replicates=50)
    plain, again = named(rows, "mAP"), named(rows, "mAP, re-ranked")
    assert again["low"] > plain["high"]


def test_few_patients_with_two_studies_give_no_figures() -> None:
    patients = np.r_[np.repeat(np.arange(9), 2), np.arange(9, 60)]
    rows = reident(noise(len(patients)), Images(patients, np.arange(len(patients))))
    assert len(rows) == 1
    assert rows[0]["note"].startswith("cannot tell: fewer than 10 patients")
    assert math.isnan(rows[0]["value"])


def test_missing_embeddings_are_left_out_and_many_images_are_drawn_by_patient() -> None:
    patients = people(100, seed=4)
    vectors = noise(len(patients))
    vectors[::9] = np.nan
    rows = reident(vectors, Images(patients, np.arange(len(patients))), num_replicates=10, most=120)
    assert "Drawn by patient: about 120 of about" in named(rows, "verdict")["note"]


def test_the_same_seed_gives_the_same_rows_and_nothing_names_a_patient() -> None:
    patients = people(60, seed=5)
    images = Images(
        patients, [f"study-{i}" for i in range(len(patients))], hashes_N=[f"hash-{i}" for i in range(len(patients))]
    )
    one, two = (reident(noise(len(patients)), images, num_replicates=20, seed=3) for _ in range(2))
    assert repr(one) == repr(two)
    assert "study-" not in repr(one)
    assert "hash-" not in repr(one)


def found(value: float, low: float, high: float, impostors: int = 100_000) -> Linkage:
    return Linkage(Estimate(0.5), Estimate(0.5), Estimate(value, low, high), 500, impostors, 100)


@pytest.mark.parametrize(
    ("linked", "said"),
    [
        (found(0.2, 0.1, 0.3), "identifiable"),
        (found(0.06, 0.02, 0.1), "identifiable"),
        (found(0.06, 0.005, 0.1), "cannot tell"),
        (found(0.03, 0.015, 0.06), "at risk"),
        (found(0.03, 0.0, 0.06), "cannot tell"),
        (found(0.001, 0.0, 0.02), "not shown"),
        (found(0.0, 0.0, 0.2), "cannot tell"),
        (found(0.0, 0.0, 0.02, impostors=9_000), "cannot tell"),
        (found(0.5, 0.4, 0.6, impostors=9_000), "identifiable"),
        (found(0.5, 0.4, 0.6, impostors=900), "cannot tell"),
        (found(0.5, math.nan, math.nan), "cannot tell"),
    ],
)
def test_the_interval_decides_where_the_sample_is_too_small(linked: Linkage, said: str) -> None:
    assert verdict(linked) == said


def test_columns_of_other_lengths_are_refused() -> None:
    with pytest.raises(MedclipError, match="different lengths") as caught:
        reident(noise(4), Images(np.arange(4), ["a"]))
    assert caught.value.reason is Reason.WRONG_USE


@pytest.mark.golden
def test_golden_mean_average_precision_and_ranks(golden: Path) -> None:
    stored = np.load(golden / "clip_reident.npz")
    right = stored["query_ids"][:, None] == stored["gallery_ids"]
    ranked = rank(stored["dist_qg"], right, ~right)
    assert ranked.precision_Q.mean() == pytest.approx(float(stored["mAP"]), abs=1e-6)
    places = np.arange(1, len(stored["cmc_first_match"]) + 1)
    np.testing.assert_allclose((ranked.first_Q[:, None] <= places).mean(0), stored["cmc_first_match"], atol=1e-6)
