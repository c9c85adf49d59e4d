from __future__ import annotations

import csv
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medclip.errors import MedclipError
from medclip.statistics.cohort import Cohort, Label, cells_of
from medclip.statistics.metrics.catalogue import METRICS
from medclip.statistics.resampling.bootstrap import evaluate, evaluate_many, metrics_of
from medclip.statistics.resampling.weights import draw_weights
from tests.kits.audit_inference import index_weights
from tests.kits.bootstrap import by_repetition, cohort_of, random_cohort

CALIBRATED = {"calibration_intercept", "calibration_slope", "calibration_in_the_large"}


def same(found: np.ndarray, expected: list[float], tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance, equal_nan=True)


@pytest.mark.slow
@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    num_patients=st.integers(1, 25),
    levels=st.sampled_from([1, 4, 15, 1000]),
    threshold=st.sampled_from([0.0, 0.25, 0.5, 0.6]),
    no_finding=st.booleans(),
)
def test_every_metric_is_that_of_repeated_rows(
    seed: int, num_patients: int, levels: int, threshold: float, no_finding: bool
) -> None:
    rng = np.random.default_rng(seed)
    cohort, label = random_cohort(rng, num_patients, levels=levels, no_finding=no_finding)
    weights_PB = draw_weights(num_patients, 2, seed=seed)
    found = evaluate(cohort, label, weights_PB, threshold=threshold)
    assert set(found.drawn) == set(METRICS) - {"c_index"}
    drawn = [np.ones(num_patients, int), *weights_PB.T]
    for b, weights_P in enumerate(drawn):
        for name, expected in by_repetition(cohort, label, weights_P, threshold).items():
            same(found.point[name] if b == 0 else found.drawn[name][:, b - 1], expected)


@settings(max_examples=40)
@given(
    data=hnp.arrays(np.int64, st.tuples(st.integers(1, 40), st.just(4)), elements=st.integers(0, 3)),
    width=st.integers(1, 20),
)
def test_hand_made_rows_with_ties_and_one_sided_groups_agree_too(data: np.ndarray, width: int) -> None:
    score, truth, group, patient = data[:, 0] / 3, data[:, 1] % 2, data[:, 2], data[:, 3]
    patient = np.unique(patient, return_inverse=True)[1]
    cohort, label = cohort_of(score, truth, patient, {"group": group})
    weights_PB = draw_weights(cohort.num_patients, 11, seed=1)
    found = evaluate(cohort, label, weights_PB, threshold=1 / 3, block_width=width)
    for b in (0, 10):
        for name, expected in by_repetition(cohort, label, weights_PB[:, b], 1 / 3).items():
            same(found.drawn[name][:, b], expected)


def test_rows_weights_multiply_the_patients_weights() -> None:
    from sklearn.metrics import average_precision_score, brier_score_loss, recall_score, roc_auc_score

    rng = np.random.default_rng(3)
    cohort, label = random_cohort(rng, 60)
    own = rng.random(len(cohort.patients_N))
    weighted = Label(label.name, label.score_N, label.truth_N, weight_N=own)
    weights_PB = draw_weights(60, 5, seed=0)
    found = evaluate(cohort, weighted, weights_PB, threshold=0.5)
    v = label.valid_N
    for b in range(5):
        w = own[v] * weights_PB[cohort.patients_N[v], b]
        y, s = label.truth_N[v], label.score_N[v]
        assert found.drawn["auroc"][0, b] == pytest.approx(roc_auc_score(y, s, sample_weight=w), abs=1e-12)
        assert found.drawn["auprc"][0, b] == pytest.approx(average_precision_score(y, s, sample_weight=w), abs=1e-12)
        assert found.drawn["brier"][0, b] == pytest.approx(brier_score_loss(y, s, sample_weight=w), abs=1e-12)
        assert found.drawn["tpr"][0, b] == pytest.approx(recall_score(y, s >= 0.5, sample_weight=w), abs=1e-12)
    assert found.n_G[0] == v.sum()  # counts stay counts


def test_values_are_those_of_fairlearn() -> None:
    from fairlearn import metrics as fl
    from sklearn.metrics import accuracy_score, precision_score, roc_auc_score

    rng = np.random.default_rng(5)
    cohort, label = random_cohort(rng, 300)
    v = label.valid_N
    w = draw_weights(300, 1, seed=0)
    found = evaluate(cohort, label, w, threshold=0.5)
    y, called = label.truth_N[v], (label.score_N[v] >= 0.5).astype(float)
    rates = {
        "tpr": fl.true_positive_rate,
        "fpr": fl.false_positive_rate,
        "tnr": fl.true_negative_rate,
        "fnr": fl.false_negative_rate,
        "selection_rate": fl.selection_rate,
        "accuracy": accuracy_score,
        "ppv": precision_score,
    }
    start = 1
    for attribute in cohort.attributes:
        there = slice(start, start + len(attribute.groups))
        start = there.stop
        frame = fl.MetricFrame(metrics=rates, y_true=y, y_pred=called, sensitive_features=attribute.codes_N[v])
        for name in rates:
            same(found.point[name][there], frame.by_group[name].to_list())
            same(found.point[name][:1], [frame.overall[name]])
        areas = fl.MetricFrame(
            metrics=roc_auc_score, y_true=y, y_pred=label.score_N[v], sensitive_features=attribute.codes_N[v]
        )
        same(found.point["auroc"][there], areas.by_group.to_list())


def test_counts_are_of_valid_rows_without_weights() -> None:
    cohort, label = cohort_of(
        [0.1, 0.2, np.nan, 0.4, 0.9], [1, 0, 1, np.nan, 1], [0, 0, 1, 1, 2], {"sex": ["F", "F", "F", "M", "M"]}
    )
    found = evaluate(cohort, label, draw_weights(3, 4, seed=0))
    assert found.n_G.tolist() == [3, 2, 1]
    assert found.n_pos_G.tolist() == [2, 1, 1]
    assert found.n_neg_G.tolist() == [1, 1, 0]
    assert found.n_patients_G.tolist() == [2, 1, 1]


def test_a_group_with_one_class_has_no_area_and_no_rate_of_the_other_class() -> None:
    cohort, label = cohort_of([0.1, 0.7, 0.3, 0.8], [1, 1, 0, 1], groups={"sex": ["F", "F", "M", "M"]})
    point = evaluate(cohort, label, draw_weights(4, 2, seed=0), threshold=0.5).point
    for name in ("auroc", "auprc_adjusted", "fpr", "tnr", "calibration_slope"):
        assert np.isnan(point[name][1]), name
    assert point["tpr"][1] == 0.5
    assert point["auprc"][1] == 1.0
    assert point["auroc"][2] == 1.0


def test_a_constant_score_has_an_area_of_exactly_one_half() -> None:
    rng = np.random.default_rng(0)
    for weight in (None, rng.random(200)):
        cohort, label = cohort_of(np.full(200, 0.3), rng.integers(0, 2, 200), np.arange(200) // 3, weight_N=weight)
        drawn = evaluate(cohort, label, draw_weights(67, 50, seed=0), metrics=["auroc"]).drawn["auroc"]
        assert (drawn == 0.5).all()


def test_a_million_rows_with_one_constant_score_end_quickly() -> None:
    num = 1_000_000
    cohort, label = cohort_of(np.full(num, 0.5), np.arange(num) % 10 == 0, np.arange(num) // 4)
    started = time.process_time()
    found = evaluate(cohort, label, draw_weights(num // 4, 16, seed=0), threshold=0.5)
    assert time.process_time() - started < 60
    assert (found.drawn["auroc"] == 0.5).all()
    assert (found.point["tpr"] == 1).all()
    same(found.point["ece"], [0.4])
    assert np.isnan(found.point["calibration_slope"]).all()


def test_an_empty_label_gives_counts_of_zero_and_no_values() -> None:
    cohort, label = cohort_of([np.nan, 0.2], [1, np.nan], groups={"sex": ["F", "M"]})
    found = evaluate(cohort, label, draw_weights(2, 3, seed=0), threshold=0.5)
    assert found.n_G.tolist() == [0, 0, 0]
    assert all(np.isnan(values).all() for values in found.drawn.values())


@pytest.mark.parametrize(("ap", "prevalence", "expected"), [(0.25, 0.25, 0.0), (1.0, 0.25, 1.0), (0.5, 0.25, 0.5)])
def test_the_adjusted_area_is_0_at_chance_and_1_when_perfect(ap: float, prevalence: float, expected: float) -> None:
    from medclip.statistics.metrics.ranks import Areas, adjusted

    nothing, positives, negatives = np.zeros(1), np.array([100 * prevalence]), np.array([100 * (1 - prevalence)])
    areas = Areas(nothing, np.array([ap]), positives, negatives, nothing)
    assert adjusted(areas)[0] == pytest.approx(expected, abs=1e-12)


def test_the_example_of_the_specification_has_its_rates() -> None:
    # g1: TP 8, FN 2, FP 1, TN 9; g2: TP 5, FN 5, FP 3, TN 7
    truth = [1] * 10 + [0] * 10 + [1] * 10 + [0] * 10
    score = [1] * 8 + [0] * 2 + [1] + [0] * 9 + [1] * 5 + [0] * 5 + [1] * 3 + [0] * 7
    cohort, label = cohort_of(score, truth, groups={"g": ["g1"] * 20 + ["g2"] * 20})
    point = evaluate(cohort, label, draw_weights(40, 2, seed=0), threshold=0.5).point
    same(point["tpr"][1:], [0.8, 0.5])
    same(point["fpr"][1:], [0.1, 0.3])


def test_underdiagnosis_of_a_perfect_model_is_0_and_of_one_that_finds_everybody_healthy_is_1() -> None:
    healthy = np.array([1, 0, 1, 0, 0, 1])
    weights = draw_weights(6, 2, seed=0)
    for score, under, over in ((healthy, 0.0, 0.0), (np.ones(6), 1.0, 0.0), (np.zeros(6), 0.0, 1.0)):
        cohort, label = cohort_of(score, healthy, no_finding=True)
        point = evaluate(cohort, label, weights, threshold=0.5).point
        assert (point["underdiagnosis"][0], point["overdiagnosis"][0]) == (under, over)
        ill, disease = cohort_of(1.0 - score, 1.0 - healthy)
        point = evaluate(ill, disease, weights, threshold=0.5).point
        assert (point["underdiagnosis"][0], point["overdiagnosis"][0]) == (under, over)


def test_threads_and_blocks_do_not_change_a_byte() -> None:
    rng = np.random.default_rng(2)
    cohort, label = random_cohort(rng, 80, levels=500)
    second = Label("second", label.score_N**2, label.truth_N, weight_N=rng.random(len(label.score_N)))
    cohort = Cohort(cohort.patients_N, (label, second), cohort.attributes)
    weights_PB = draw_weights(80, 37, seed=0)
    limits = {"finding": 0.5, "second": 0.3}
    one, two = (evaluate_many(cohort, limits, weights_PB, threads=n) for n in (1, 2))
    for made in (label, second):
        for width in (1, 8, 1000):
            again = evaluate(cohort, made, weights_PB, threshold=limits[made.name], block_width=width)
            for name, values in again.drawn.items():
                expected = one[made.name].drawn[name].tobytes()
                assert values.tobytes() == expected == two[made.name].drawn[name].tobytes(), (name, width)


def test_progress_is_told_after_each_label() -> None:
    cohort, label = cohort_of([0.1, 0.9], [0, 1])
    told: list[tuple[int, int]] = []
    found = evaluate_many(cohort, {}, draw_weights(2, 2, seed=0), progress=lambda *done: told.append(done))
    assert told == [(1, 1)]
    assert list(found) == [label.name]
    assert "tpr" not in found[label.name].point


def test_weights_of_0_and_1_measure_whoever_has_a_1() -> None:
    rng = np.random.default_rng(4)
    cohort, label = random_cohort(rng, 50)
    chosen_P = rng.integers(0, 2, 50).astype(np.uint8)
    inside = chosen_P[cohort.patients_N] == 1
    ids = np.unique(cohort.patients_N[inside], return_inverse=True)[1]
    part, piece = cohort_of(label.score_N[inside], label.truth_N[inside], ids)
    whole = evaluate(cohort, label, chosen_P[:, None], threshold=0.5)
    alone = evaluate(part, piece, draw_weights(part.num_patients, 1, seed=0), threshold=0.5)
    for name in set(METRICS) - CALIBRATED - {"c_index", "ece_mass"}:
        same(whole.drawn[name][0], [alone.point[name][0]])


def test_metrics_that_are_not_defined_are_left_out_or_nan_when_named() -> None:
    cohort, label = cohort_of([3.0, -1.0], [1, 0], probability=False)
    weights = draw_weights(2, 2, seed=0)
    assert "brier" not in metrics_of(label, 0.5)
    assert "net_benefit" not in metrics_of(label, 0.5)
    assert "tpr" not in metrics_of(label, None)
    point = evaluate(cohort, label, weights, metrics=["brier", "tpr", "c_index", "auroc"]).point
    assert np.isnan([point["brier"][0], point["tpr"][0], point["c_index"][0]]).all()
    assert point["auroc"][0] == 1


def test_without_replicates_the_sample_itself_is_measured() -> None:
    cohort, label = cohort_of([0.1, 0.9], [0, 1])
    found = evaluate(cohort, label, np.zeros((2, 0), np.uint8), threshold=0.5)
    assert found.point["auroc"][0] == 1
    assert found.drawn["auroc"].shape == (1, 0)


def test_unusable_input_is_refused() -> None:
    cohort, label = cohort_of([0.1, 0.9], [0, 1])
    weights = draw_weights(2, 2, seed=0)
    with pytest.raises(MedclipError, match="there is no metric 'luck'"):
        evaluate(cohort, label, weights, metrics=["luck"])
    with pytest.raises(MedclipError, match="must be patients × replicates with 2 patients"):
        evaluate(cohort, label, weights[:1])
    with pytest.raises(MedclipError, match="truths must be 0, 1 or missing"):
        evaluate(cohort, Label("x", label.score_N, np.array([0.0, -1.0])), weights)
    with pytest.raises(MedclipError, match="weights of rows"):
        evaluate(cohort, Label("x", label.score_N, label.truth_N, weight_N=np.array([1.0, -1.0])), weights)
    with pytest.raises(MedclipError, match="1 scores for 2 rows"):
        evaluate(cohort, Label("x", np.zeros(1), np.zeros(1)), weights)


def test_every_metric_explains_itself() -> None:
    for info in METRICS.values():
        assert info.title
        assert info.formula
        assert info.reference


@pytest.mark.golden
def test_published_chest_xray_metrics_and_intervals(golden: Path) -> None:
    with np.load(golden / "cxr_fairness_metrics.npz") as file:
        g = {name: file[name] for name in file.files}
    num = len(g["y"])
    rng = np.random.RandomState(int(g["numpy_seed"]))
    drawn = {}
    for name in ("auroc", "auprc_adjusted"):  # in this order: one stream of random numbers
        indices = []
        while len(indices) < 1000:
            chosen = rng.randint(0, num, num)
            if g["y"][chosen].any():
                indices.append(chosen)
        drawn[name] = index_weights(indices, num)
    cohort, label = cohort_of(g["p"], g["y"])
    for name, interval in (("auroc", "boot_auc_ci"), ("auprc_adjusted", "boot_adj_auprc_ci")):
        found = evaluate(cohort, label, drawn[name])
        same(np.percentile(found.drawn[name][0], [2.5, 97.5]), g[interval])
    for name, key in (("auroc", "auc"), ("auprc", "auprc"), ("prevalence", "prevalence"), ("auprc_adjusted",) * 2):
        same(found.point[name], [g[key if key != "auprc_adjusted" else "adjusted_auprc"]])


@pytest.mark.golden
def test_published_resamples_have_their_areas(golden: Path) -> None:
    with np.load(golden / "multitest_bootstrap.npz") as g:
        cohort, label = cohort_of(g["score"], g["y"], groups={"sex": g["group"]})
        found = evaluate(cohort, label, index_weights(g["boot_idx"], len(g["y"])), metrics=["auroc"])
        same(found.drawn["auroc"][0], g["boot_auroc"])
        drawn = evaluate(cohort, label, index_weights(g["boot_idx_MF"], len(g["y"])), metrics=["auroc"]).drawn["auroc"]
        place = {cell.group: i for i, cell in enumerate(cells_of(cohort))}
        same(drawn[place["M"]] - drawn[place["F"]], g["boot_gap_M_minus_F"])


@pytest.mark.golden
def test_zero_shot_scores_have_the_published_areas_and_net_benefit(golden: Path) -> None:
    with np.load(golden / "zero_shot_retrieval.npz") as g:
        once = np.ones((len(g["y"]), 1), np.uint8)
        for c in range(g["y"].shape[1]):
            cohort, label = cohort_of(g["prob_chexzero"][:, c], g["y"][:, c])
            point = evaluate(cohort, label, once).point
            same(point["auroc"], [g["auroc"][c]])
            same(point["auprc"], [g["average_precision"][c]])
        found = []
        for c in range(g["y"].shape[1]):
            cohort, label = cohort_of(g["dca_prob"], g["y"][:, c])
            values = [evaluate(cohort, label, once, threshold=t).point["net_benefit"][0] for t in g["dca_pt"]]
            found.append(np.abs(values - g["dca_net_benefit"]).max())
        assert min(found) < 1e-12  # the curve is that of one of the findings


@pytest.mark.golden
def test_the_published_table_of_groups(golden: Path) -> None:
    """Rates at two thresholds, areas, Brier and calibration by sex and age, and underdiagnosis with intersections."""
    with (golden / "fairness_input.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (golden / "fairness_expected.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    sex, age = [r["sex"] for r in rows], [r["age"] for r in rows]
    groups = {"sex": sex, "age": age, "both": [f"sex={s}&age={a}" for s, a in zip(sex, age, strict=True)]}
    score, truth = np.array([float(r["score"]) for r in rows]), np.array([float(r["y"]) for r in rows])
    cohort, label = cohort_of(score, truth, groups=groups)
    healthy = Label("no finding", 1 - score, 1 - truth, no_finding=True)  # what the table's last rows are about
    once = np.ones((len(rows), 1), np.uint8)
    names = {"sel": "selection_rate", "ece15_l1": "ece", "underdiagnosis_rate": "underdiagnosis"}
    names |= {"overdiagnosis_rate": "overdiagnosis"} | {n: n for n in METRICS}
    place = {(cell.attribute, cell.group): g for g, cell in enumerate(cells_of(cohort))}
    limits = {r["threshold"]: float(r["threshold"] or 0.5) for r in expected}
    measured = {t: evaluate(cohort, label, once, threshold=limit) for t, limit in limits.items()}
    measured_healthy = {t: evaluate(cohort, healthy, once, threshold=limit) for t, limit in limits.items()}
    checked = 0
    for row in expected:
        attribute, group = row["attribute"], row["group"]
        if attribute == "underdx":
            attribute, group = ("both", group) if "&" in group else ("sex", group.removeprefix("sex="))
        g = 0 if group == "ALL" else place.get((attribute, group))
        found = (measured_healthy if row["attribute"] == "underdx" else measured)[row["threshold"]]
        if row["metric"] == "n":
            assert found.n_G[g] == int(row["value"])
        elif row["metric"] == "n_diseased":
            assert found.n_neg_G[g] == int(row["value"])
        elif g is not None and row["metric"] in names:
            assert found.point[names[row["metric"]]][g] == pytest.approx(float(row["value"]), abs=1e-9), row
        else:
            continue
        checked += 1
    assert checked > len(expected) / 2
