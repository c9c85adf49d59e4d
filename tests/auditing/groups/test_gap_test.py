"""The permutation test: uniform without differences, small with them, patients kept whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kstest, norm
from sklearn.metrics import roc_auc_score

from medclip.auditing.groups import gap_test as shuffle
from medclip.auditing.groups.gap_test import gap_test
from medclip.auditing.groups.gaps import gaps
from medclip.auditing.input.read import read_cohort
from medclip.errors import MedclipError
from medclip.statistics.cohort import Cohort
from medclip.statistics.resampling.bootstrap import evaluate
from medclip.statistics.resampling.standard_errors import clusters_of
from medclip.statistics.resampling.weights import draw_weights
from tests.kits.audit_inference import cohort_of
from tests.kits.audit_tables import audit_table

NAMES = ["auroc_max_min", "equalised_odds", "tpr_max_min", "demographic_parity"]


def clinic(seed: int, patients: int = 60, groups: int = 3, shift: float = 0.0) -> Cohort:
    rng = np.random.default_rng(seed)
    keys = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    group = (np.arange(patients) % groups)[keys]
    truth = rng.random(len(keys)) < 0.4
    logit = rng.normal(size=patients)[keys] + rng.normal(size=len(keys)) + 2 * truth
    logit -= shift * truth * (group == 0)
    return cohort_of(truth, 1 / (1 + np.exp(1 - logit)), patients=keys, group=group.astype(str))


def permuted(cohort: Cohort, names: list[str], num: int = 99, seed: int = 0, groups: int = 3):
    label = cohort.labels[0]
    return gap_test(cohort, label, "group", range(groups), names, threshold=0.5, num_permutations=num, seed=seed)


def test_p_is_uniform_when_groups_are_exchangeable():
    found = [permuted(clinic(seed, 40), NAMES[:2], seed=seed) for seed in range(200)]  # spec check 9
    rng = np.random.default_rng(0)
    for name in NAMES[:2]:
        # p is a multiple of 1/100; spread evenly below itself it is continuous
        p = [f[name].p - rng.random() / 100 for f in found]
        assert kstest(p, "uniform").pvalue > 0.01, name
        assert np.mean([f[name].p <= 0.05 for f in found]) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


def test_a_planted_shift_is_found():
    found = permuted(clinic(1, 240, shift=2.0), NAMES)
    for name in ("auroc_max_min", "equalised_odds", "tpr_max_min"):
        assert found[name].p == 0.01
        assert found[name].value > found[name].null_95


def test_the_gap_is_that_of_the_audit_and_the_null_is_below_it_only_by_chance():
    cohort = clinic(2, 150)
    label = cohort.labels[0]
    drawn = evaluate(cohort, label, draw_weights(150, 10, seed=0), threshold=0.5)
    audited = gaps(drawn, [1, 2, 3], clusters_of(cohort, label), NAMES)
    found = permuted(cohort, NAMES)
    for name in NAMES:
        assert found[name].value == pytest.approx(audited[name].value, abs=1e-12)
        assert found[name].num_permutations == 99
    assert 0 < found["auroc_max_min"].null_mean < found["auroc_max_min"].null_95 < 0.3


def test_hidden_groups_are_not_shuffled_in():
    cohort = clinic(3, 150, groups=4)
    changed = replace(
        cohort,
        labels=(
            replace(
                cohort.labels[0], score_N=np.where(cohort.attributes[0].codes_N == 3, 0.5, cohort.labels[0].score_N)
            ),
        ),
    )
    assert permuted(cohort, ["auroc_max_min"])["auroc_max_min"] == permuted(changed, ["auroc_max_min"])["auroc_max_min"]


def test_an_attribute_that_varies_within_patients_is_shuffled_within_them():
    """Each patient has an image of each view, and one view scores a little lower: patients differ by far more."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(100), 2)
    view = np.tile([0, 1], 100)
    truth = (np.arange(100) % 2)[patients]
    score = rng.normal(0, 3, 100)[patients] + truth - 0.4 * view * truth + rng.normal(0, 0.1, 200)
    found = permuted(
        cohort_of(truth, score, patients=patients, group=view.astype(str), probability=False),
        ["auroc_max_min"],
        groups=2,
    )["auroc_max_min"]
    assert found.p == 0.01
    assert found.value < 0.1
    apart = permuted(cohort_of(truth, score, group=view.astype(str), probability=False), ["auroc_max_min"], groups=2)
    assert apart["auroc_max_min"].p > 0.1  # as if the images were of other patients


def test_a_patient_of_one_view_changes_places_with_others_and_one_of_two_does_not():
    """Scores that say who has images of both views: only what is left of the others can move."""
    patients = np.r_[np.repeat(np.arange(40), 2), np.arange(40, 100)]
    group = np.r_[np.tile([0, 1], 40), np.arange(60) % 3 == 0].astype(int)
    found = selection(patients < 40, patients=patients, group=group)
    assert found.value > 0
    assert_no_shuffle_moves_it(found)
    units = shuffle.units_of(*cohort_and_label(patients, group), np.asarray(group, np.int16), [0, 1])
    assert len(units.codes_U) == 80 + 60
    assert sorted(np.bincount(units.stratum_V).tolist()) == [2] * 40 + [60]
    assert len(np.unique(units.movable_V)) == 140


def cohort_and_label(patients, group):
    cohort = cohort_of(np.zeros(len(patients)), np.zeros(len(patients)), patients=patients, group=group.astype(str))
    return cohort, cohort.labels[0]


@pytest.mark.parametrize("patients_of", [1, 3])
def test_a_draw_has_the_values_that_scikit_learn_finds_in_its_groups(patients_of: int):
    cohort = (
        clinic(7, 90)
        if patients_of == 3
        else cohort_of(
            np.random.default_rng(1).random(1500) < 0.3,
            np.random.default_rng(2).random(1500),
            group=np.random.default_rng(3).integers(0, 3, 1500).astype(str),
        )
    )
    label = cohort.labels[0]
    units = shuffle.units_of(cohort, label, cohort.attributes[0].codes_N, [0, 1, 2])
    drawn = shuffle.Shuffles(units, ["auroc", "tpr", "fpr"], 3, 0.5, seed=1).first(5)
    dealt = np.concatenate([block for block, _ in zip(shuffle._codes(units, 5, 1), range(2), strict=False)], axis=1)
    near = 0.002 if patients_of == 1 else 1e-12  # 1,500 scores in 512 bins
    for b in range(6):
        codes_n = dealt[units.unit_n, b]
        for g in range(3):
            truth, score = units.label.truth_N[codes_n == g], units.label.score_N[codes_n == g]
            assert drawn["auroc"][g, b] == pytest.approx(roc_auc_score(truth, score), abs=near)
            assert drawn["tpr"][g, b] == pytest.approx(np.mean(score[truth == 1] >= 0.5), abs=1e-12)
            assert drawn["fpr"][g, b] == pytest.approx(np.mean(score[truth == 0] >= 0.5), abs=1e-12)
    assert (np.sort(dealt, axis=0) == np.sort(dealt[:, :1], axis=0)).all()  # nobody leaves or joins a group


def groups_of(sizes, drops, seed):
    """Groups with a true AUROC of .85 less a drop; one image a patient."""
    rng = np.random.default_rng(seed)
    code = np.repeat(np.arange(len(sizes)), sizes)
    truth = rng.random(len(code)) < 0.3
    apart = 2**0.5 * norm.ppf(0.85 - np.array(drops))
    score = rng.normal(size=len(code)) + truth * apart[code]
    return cohort_of(truth, score, probability=False, group=code.astype(str))


def test_a_small_group_does_not_drown_what_a_large_one_shows():
    found = [
        permuted(groups_of((1000, 1000, 40), (0.0, 0.1, 0.0), seed), NAMES[:1], seed=seed)["auroc_max_min"]
        for seed in range(12)
    ]
    assert sum(test.p <= 0.05 for test in found) >= 11
    assert sum(test.value > test.null_95 for test in found) <= 6  # in raw units the small group hides it
    assert {test.group for test in found} <= {0, 1}
    for test in found:
        assert test.smallest < 0.09 < test.smallest_every  # a group of 40 would need more


def test_scores_that_are_shifted_between_groups_of_one_auroc_are_no_gap():
    """The AUROC of everybody is then below that of each: deviations from it would be found."""
    rng = np.random.default_rng(0)
    found = []
    for seed in range(40):
        cohort = groups_of((400, 400), (0.0, 0.0), seed)
        shifted = replace(cohort.labels[0], score_N=cohort.labels[0].score_N + 2 * cohort.attributes[0].codes_N)
        assert roc_auc_score(shifted.truth_N, shifted.score_N) < 0.82
        found.append(permuted(replace(cohort, labels=(shifted,)), NAMES[:1], seed=seed, groups=2)["auroc_max_min"].p)
    assert np.mean(np.array(found) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 40)
    assert kstest(np.array(found) - rng.random(40) / 100, "uniform").pvalue > 0.01


def test_the_group_that_stands_out_is_named_and_of_two_the_one_that_fares_worse():
    assert permuted(groups_of((500, 500, 500), (0.0, 0.15, 0.0), 0), NAMES[:1])["auroc_max_min"].group == 1
    assert permuted(groups_of((500, 500), (0.0, 0.15), 0), NAMES[:1], groups=2)["auroc_max_min"].group == 1
    worse = groups_of((500, 500), (0.15, 0.0), 0)
    assert permuted(worse, NAMES[:1], groups=2)["auroc_max_min"].group == 0
    rates = permuted(worse, ["fpr_max_min", "tpr_max_min"], groups=2)
    assert rates["tpr_max_min"].group == 0  # the lower sensitivity


def test_many_shuffles_end_early_only_where_p_is_not_small():
    alike, apart = groups_of((200, 200), (0, 0), 3), groups_of((400, 400), (0, 0.2), 0)
    soon = permuted(alike, NAMES[:1], num=20_000, groups=2)["auroc_max_min"]
    assert soon.num_permutations in (250, 1000)
    assert soon.p > 0.05
    late = permuted(apart, NAMES[:1], num=2000, groups=2)["auroc_max_min"]
    assert (late.num_permutations, late.p) == (2000, pytest.approx(1 / 2001))


def test_images_of_a_patient_stay_together():
    """100 patients of 20 images that are all alike: shuffling rows would make a null gap of nearly nothing."""
    rng = np.random.default_rng(0)
    keys = np.repeat(np.arange(100), 20)
    truth, score = rng.integers(0, 2, 100)[keys], rng.random(100)[keys]
    group = (np.arange(100) % 2)[keys].astype(str)
    many = permuted(cohort_of(truth, score, patients=keys, group=group), ["auroc_max_min"], groups=2)
    one = permuted(cohort_of(truth[::20], score[::20], group=group[::20]), ["auroc_max_min"], groups=2)
    assert many["auroc_max_min"].null_95 == pytest.approx(one["auroc_max_min"].null_95, rel=0.25)


STILL = ["demographic_parity"]


def selection(score, *, patients, group, truth=None, names=STILL):
    """Test the gap of the share of rows above 0.5 between groups."""
    truth = np.zeros(len(score)) if truth is None else truth
    cohort = cohort_of(truth, np.where(score, 0.9, 0.1), patients=patients, group=np.asarray(group).astype(str))
    return permuted(cohort, names, groups=2)[names[0]]


def assert_no_shuffle_moves_it(found):
    assert found.num_permutations == 99
    assert found.null_mean == pytest.approx(found.value, abs=1e-12)
    assert found.null_95 == pytest.approx(found.value, abs=1e-12)
    assert found.p == 1.0


def test_patients_change_places_only_with_patients_of_the_same_outcome():
    """Scores that are the outcome: with as many patients of each outcome in each group, no share can change."""
    patients = np.repeat(np.arange(120), 2)
    outcome = np.arange(120) % 3  # no row positive, one of two, both
    truth = np.stack([outcome == 2, outcome > 0], 1).ravel()
    group = (np.arange(120) % 5 < 2 + outcome % 2)[patients]
    assert_no_shuffle_moves_it(selection(truth, patients=patients, group=group, truth=truth))
    for value in range(3):  # each outcome apart from both others
        score = (outcome == value)[patients]
        found = selection(score, patients=patients, group=group, truth=truth)
        assert found.value > 0
        assert_no_shuffle_moves_it(found)


def test_patients_change_places_only_with_patients_of_about_as_many_rows():
    """Scores that are the number of rows: 1, 2 to 3, 4 to 7, 8 and more."""
    sizes = np.tile([1, 2, 4, 8], 30)
    patients = np.repeat(np.arange(120), sizes)
    group = np.random.default_rng(0).random(120) < np.tile([0.3, 0.4, 0.5, 0.6], 30)
    for size in (1, 2, 4, 8):
        found = selection((sizes == size)[patients], patients=patients, group=group[patients])
        assert found.value > 0
        assert_no_shuffle_moves_it(found)


@pytest.mark.parametrize(("few", "many", "together"), [(2, 3, True), (4, 7, True), (8, 30, True), (3, 4, False)])
def test_numbers_of_rows_that_are_about_alike_do_change_places(few: int, many: int, together: bool):
    sizes = np.tile([few, many], 40)
    patients = np.repeat(np.arange(80), sizes)
    group = np.random.default_rng(0).random(80) < 0.5
    found = selection((sizes == many)[patients], patients=patients, group=group[patients])
    assert (found.null_95 != pytest.approx(found.value, abs=1e-12)) == together


def test_outcomes_do_not_change_places_within_equal_numbers_of_rows_nor_numbers_within_outcomes():
    """Both at once: what is shuffled within one of the two only would move the share."""
    outcome, sizes = np.arange(160) % 2, np.where(np.arange(160) % 4 < 2, 1, 4)
    patients = np.repeat(np.arange(160), sizes)
    group = np.random.default_rng(1).random(160) < 0.3 + 0.2 * outcome + 0.1 * (sizes == 1)
    for picked in (outcome == 1, sizes == 1, (outcome == 1) & (sizes == 1)):
        found = selection(picked[patients], patients=patients, group=group[patients], truth=outcome[patients])
        assert found.value > 0
        assert_no_shuffle_moves_it(found)
    free = np.random.default_rng(2).random(160) < 0.5  # what no stratum holds fast does move
    moved = selection(free[patients], patients=patients, group=group[patients], truth=outcome[patients])
    assert moved.null_mean != pytest.approx(moved.value, abs=1e-3)


def test_rows_of_a_patient_go_to_one_group_together():
    """Each patient has one row above and one below the threshold: half of every group, unless rows are torn apart."""
    patients = np.repeat(np.arange(80), 2)
    found = selection(np.tile([1, 0], 80), patients=patients, group=(np.arange(80) % 2)[patients])
    assert found.value == 0
    assert_no_shuffle_moves_it(found)


def test_the_same_seed_gives_the_same_test():
    cohort = clinic(5)
    assert permuted(cohort, NAMES, seed=1) == permuted(cohort, NAMES, seed=1)
    assert permuted(cohort, NAMES, seed=1) != permuted(cohort, NAMES, seed=2)


def test_what_cannot_be_tested_is_nan():
    cohort = clinic(6)
    nothing = replace(cohort.labels[0], truth_N=np.full(len(cohort.patients_N), np.nan))
    for found in (
        gap_test(cohort, cohort.labels[0], "group", [1], ["auroc_max_min"]),
        gap_test(cohort, nothing, "group", [0, 1], ["auroc_max_min"]),
        gap_test(
            cohort,
            replace(cohort.labels[0], truth_N=np.ones(len(cohort.patients_N))),
            "group",
            [0, 1],
            ["auroc_max_min"],
        ),
    ):
        assert np.isnan(found["auroc_max_min"].p)
        assert found["auroc_max_min"].num_permutations == 0
    with pytest.raises(MedclipError, match="needs an attribute"):
        gap_test(cohort, cohort.labels[0], "race", [0, 1], ["auroc_max_min"])
    with pytest.raises(MedclipError, match="one shuffle or more"):
        permuted(cohort, NAMES, num=0)


@pytest.mark.parametrize(
    ("groups", "each", "mean", "top"), [(2, 500, 0.027, 0.065), (5, 500, 0.057, 0.095), (5, 2000, 0.028, 0.045)]
)
def test_the_null_gap_is_that_of_the_table_in_the_spec(groups: int, each: int, mean: float, top: float):
    """AUROC .80 everywhere, prevalence .2; the table is itself a simulation of 400 runs."""
    rng = np.random.default_rng(groups * each)
    truth = rng.random(groups * each) < 0.2
    score = rng.normal(size=len(truth)) + 2**0.5 * 0.8416 * truth
    cohort = cohort_of(truth, score, probability=False, group=np.repeat(np.arange(groups), each).astype(str))
    found = gap_test(cohort, cohort.labels[0], "group", range(groups), ["auroc_max_min"], num_permutations=400)[
        "auroc_max_min"
    ]
    assert found.null_mean == pytest.approx(mean, rel=0.15)
    assert found.null_95 == pytest.approx(top, rel=0.2)


def test_how_many_shuffles_are_held_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    cohort = read_cohort(audit_table(40), by=["sex"])
    found = []
    for at_once in (20, 256):
        monkeypatch.setattr(shuffle, "_AT_ONCE", at_once * cohort.num_patients)
        found.append(gap_test(cohort, cohort.labels[0], "sex", [0, 1], ["auroc_max_min"], num_permutations=50))
    assert found[0] == found[1]


def test_of_two_groups_the_smallest_gap_is_that_of_two_shares():
    rng = np.random.default_rng(0)
    truth, group = np.ones(800), (np.arange(800) % 2).astype(str)
    cohort = cohort_of(np.r_[truth, np.zeros(10)], np.r_[rng.random(800), np.zeros(10)], group=np.r_[group, ["0"] * 10])
    found = gap_test(cohort, cohort.labels[0], "group", [0, 1], ["tpr_max_min"], threshold=0.5, num_permutations=999)
    expected = (norm.ppf(0.975) + norm.ppf(0.8)) * np.sqrt(0.25 / 400 + 0.25 / 400)
    assert found["tpr_max_min"].smallest == pytest.approx(expected, rel=0.1)
