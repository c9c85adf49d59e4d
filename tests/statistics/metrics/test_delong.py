"""DeLong's variance against the golden file, the spec's example, brute force, and simulation for clusters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.statistics.metrics.delong import auroc_variance, interval, paired, unpaired

TRUTH = [1, 1, 1, 0, 0, 0]
FIRST, SECOND = [0.9, 0.7, 0.4, 0.6, 0.4, 0.1], [0.8, 0.5, 0.6, 0.7, 0.2, 0.3]


@pytest.mark.golden
def test_golden_paired_comparison_and_intervals(golden: Path):
    d = np.load(golden / "delong.npz", allow_pickle=False)
    areas = auroc_variance(d["y"], d["score1"], d["score2"])
    np.testing.assert_allclose(areas.auroc_K, d["auc"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(areas.covariance_KK, d["cov"], rtol=0, atol=1e-10)
    found = paired(d["y"], d["score1"], d["score2"])
    np.testing.assert_allclose([abs(found.z), found.p], [abs(d["z"]), d["p_value"]], atol=1e-10)
    assert found.log10_p == pytest.approx(float(d["log10_p"]), abs=1e-10)
    for scale in ("wald", "logit"):
        ends = [interval(a, v, scale=scale) for a, v in zip(areas.auroc_K, np.diag(areas.covariance_KK), strict=True)]
        np.testing.assert_allclose(ends, d[f"ci95_{scale}"], rtol=0, atol=1e-10)


@pytest.mark.golden
def test_golden_unpaired_comparison(golden: Path):
    d = np.load(golden / "delong.npz", allow_pickle=False)
    for n, rows in enumerate((d["F_mask"], d["M_mask"])):
        areas = auroc_variance(d["y"][rows], d["score1"][rows])
        assert areas.auroc_K[0] == pytest.approx(d["auc_F_M"][n], abs=1e-10)
        assert areas.covariance_KK[0, 0] == pytest.approx(d["var_F_M"][n], abs=1e-10)
    found = unpaired(d["y"], d["score1"], np.arange(len(d["y"])), d["F_mask"], d["M_mask"])
    assert (abs(found.z), found.p) == pytest.approx((abs(float(d["z_unpaired"])), float(d["p_unpaired"])), abs=1e-10)


def test_the_example_of_the_spec():
    areas = auroc_variance(TRUTH, FIRST, SECOND)
    np.testing.assert_allclose(areas.auroc_K, [0.833333, 0.777778], atol=1e-6)
    np.testing.assert_allclose(areas.covariance_KK, [[0.037037, 0.027778], [0.027778, 0.061728]], atol=1e-6)
    assert paired(TRUTH, FIRST, SECOND).p == pytest.approx(0.789268, abs=1e-6)


def brute(truth: NDArray, scores: list[NDArray]) -> NDArray:
    """Covariances from every pair of a positive and a negative."""
    v10, v01 = [], []
    for s in scores:
        x, y = s[truth == 1], s[truth == 0]
        psi = (x[:, None] > y) + 0.5 * (x[:, None] == y)
        v10.append(psi.mean(axis=1))
        v01.append(psi.mean(axis=0))
    return np.cov(v10) / len(v10[0]) + np.cov(v01) / len(v01[0])


@given(seed=st.integers(0, 300), ties=st.booleans())
def test_mid_ranks_match_brute_force(seed: int, ties: bool):
    rng = np.random.default_rng(seed)
    truth = np.r_[1, 1, 0, 0, rng.integers(0, 2, rng.integers(0, 40))]
    scores = [np.round(rng.normal(size=len(truth)), 0 if ties else 8) for _ in range(2)]
    np.testing.assert_allclose(auroc_variance(truth, *scores).covariance_KK, brute(truth, scores), rtol=0, atol=1e-12)


def test_constant_scores_are_one_half_with_no_variance_and_no_interval():
    truth, constant = np.tile([0, 1], 500), np.full(1000, 0.3)
    areas = auroc_variance(truth, constant)
    assert (areas.auroc_K[0], areas.covariance_KK[0, 0]) == (0.5, 0.0)
    assert np.isnan(interval(0.5, 0.0)).all()
    same = paired(truth, constant, constant)
    assert (same.value, same.p, same.log10_p) == (0.0, 1.0, 0.0)
    apart = paired(truth, truth, constant)
    assert apart.value == 0.5
    assert np.isnan(apart.p)


def test_one_class_or_one_positive_gives_no_variance():
    assert np.isnan(auroc_variance([1, 1], [0.1, 0.2]).auroc_K).all()
    single = auroc_variance([1, 0, 0], [0.5, 0.2, 0.1])
    assert single.auroc_K[0] == 1
    assert np.isnan(single.covariance_KK).all()
    assert np.isnan(auroc_variance([1, 1], [0.1, 0.2], patients_N=[0, 1]).auroc_K).all()
    assert np.isnan(auroc_variance([1, 1, 0, 0], [0.5, 0.4, 0.2, 0.1], patients_N=[0, 0, 1, 2]).covariance_KK).all()


def test_a_very_small_p_keeps_its_logarithm():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], 20_000)
    found = paired(truth, truth + rng.normal(size=40_000), rng.normal(size=40_000))
    assert found.p == 0
    assert found.log10_p < -320


def test_groups_that_share_patients_are_refused_with_counts_only():
    with pytest.raises(MedclipError, match=r"^2 patients are in both groups") as caught:
        unpaired([1, 0, 1, 0], [0.2, 0.1, 0.4, 0.3], ["ann", "bob", "ann", "bob"], [1, 1, 0, 0], [0, 0, 1, 1])
    assert caught.value.reason is Reason.PATIENT_OVERLAP
    assert "ann" not in str(caught.value)


@pytest.mark.parametrize(
    ("truth", "scores"), [([0, 2], [[0.1, 0.2]]), ([0, 1], [[0.1, np.nan]]), ([0, 1], [[0.1]]), ([0, 1], [])]
)
def test_what_cannot_be_used_is_refused(truth: list[int], scores: list[list[float]]):
    with pytest.raises(MedclipError, match="DeLong needs"):
        auroc_variance(truth, *scores)
    with pytest.raises(MedclipError, match="no scale"):
        interval(0.5, 0.1, scale="log")
    with pytest.raises(MedclipError, match="2 truths and 1 patients"):
        auroc_variance([0, 1], [0.1, 0.2], patients_N=[0])


def test_clustered_variance_is_that_of_delong_with_one_image_each():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, 400)
    scores = [truth + rng.normal(size=400) for _ in range(2)]
    plain, clustered = auroc_variance(truth, *scores), auroc_variance(truth, *scores, patients_N=np.arange(400))
    np.testing.assert_allclose(clustered.covariance_KK, plain.covariance_KK, rtol=0.01, atol=1e-7)


def test_rows_repeated_five_times_do_not_count_as_new_patients():
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 2, 300)
    score = truth + rng.normal(size=300)
    once = auroc_variance(truth, score).covariance_KK[0, 0]
    again = np.repeat(truth, 5), np.repeat(score, 5)
    assert auroc_variance(*again).covariance_KK[0, 0] < 0.25 * once
    many = auroc_variance(again[0], again[1], patients_N=np.repeat(np.arange(300), 5)).covariance_KK[0, 0]
    assert many == pytest.approx(once, rel=0.01)
    patients, half = np.repeat(np.arange(300), 5), np.repeat(np.arange(300) < 150, 5)
    assert unpaired(again[0], again[1], patients, half, ~half).variance == pytest.approx(
        unpaired(truth, score, np.arange(300), half[::5], ~half[::5]).variance, rel=0.03
    )
    assert paired(again[0], again[1], -again[1], patients).variance == pytest.approx(
        paired(truth, score, -score).variance, rel=0.02
    )


def test_the_clustered_variance_is_right_on_average_on_clustered_data():
    rng = np.random.default_rng(3)
    aurocs, clustered, plain = [], [], []
    for _ in range(150):
        patients = np.repeat(np.arange(80), rng.integers(1, 9, 80))
        effect = rng.normal(size=(2, 80))[:, patients] + rng.normal(size=(2, len(patients)))
        truth = (effect[0] > 0.7).astype(int)
        score = effect[1] + 1.5 * truth
        found = auroc_variance(truth, score, patients_N=patients)
        aurocs.append(found.auroc_K[0])
        clustered.append(found.covariance_KK[0, 0])
        plain.append(auroc_variance(truth, score).covariance_KK[0, 0])
    spread = np.var(aurocs, ddof=1)  # known to about 12 %
    assert np.mean(clustered) == pytest.approx(spread, rel=0.35)
    assert np.mean(plain) < 0.7 * np.mean(clustered)


def test_the_variance_of_clustered_images_is_that_of_obuchowskis_sums():
    truth = np.array([1, 0, 1, 1, 0, 0, 1, 0, 0])
    score = np.array([0.9, 0.4, 0.35, 0.8, 0.1, 0.5, 0.3, 0.45, 0.2])
    patient = np.array([0, 0, 0, 1, 1, 2, 3, 3, 4])
    x, y = score[truth == 1], score[truth == 0]
    above = {(i, j): float(x[i] > y[j]) + (x[i] == y[j]) / 2 for i in range(len(x)) for j in range(len(y))}
    area = sum(above.values()) / len(above)
    v10 = [sum(above[i, j] for j in range(len(y))) / len(y) - area for i in range(len(x))]
    v01 = [sum(above[i, j] for i in range(len(x))) / len(x) - area for j in range(len(y))]
    of_x, of_y, num = patient[truth == 1], patient[truth == 0], 5
    sum_x = [sum(v for v, p in zip(v10, of_x, strict=True) if p == one) for one in range(num)]
    sum_y = [sum(v for v, p in zip(v01, of_y, strict=True) if p == one) for one in range(num)]
    num_x, num_y = len(set(of_x)), len(set(of_y))
    s10 = num_x / ((num_x - 1) * len(x)) * sum(v * v for v in sum_x)
    s01 = num_y / ((num_y - 1) * len(y)) * sum(v * v for v in sum_y)
    s11 = num / (num - 1) * sum(a * b for a, b in zip(sum_x, sum_y, strict=True))
    assert num_x < num  # patients without a positive count in s11 alone
    found = auroc_variance(truth, score, patients_N=patient)
    np.testing.assert_allclose(found.auroc_K, area)
    np.testing.assert_allclose(
        found.covariance_KK, s10 / len(x) + s01 / len(y) + 2 * s11 / (len(x) * len(y)), rtol=1e-12
    )


def test_two_patients_of_each_kind_are_enough_for_a_variance_and_one_is_not() -> None:
    truth, score = [1, 1, 0, 0], [0.9, 0.4, 0.5, 0.1]
    assert np.isfinite(auroc_variance(truth, score, patients_N=[0, 1, 2, 3]).covariance_KK).all()
    assert np.isnan(auroc_variance(truth, score, patients_N=[0, 0, 1, 2]).covariance_KK).all()
