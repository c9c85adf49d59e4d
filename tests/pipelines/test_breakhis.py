"""pipelines/breakhis: names, protocols by patient, and figures by image and by patient."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medclip.statistics.resampling.resampled import difference, interval_of
from tests.kits.breakhis import module_of

tree, protocols, figures, simulate = (module_of(n) for n in ("tree", "protocols", "figures", "simulate"))
PER_PATIENT = {"A": 3, "F": 3, "PT": 1, "TA": 2, "DC": 9, "LC": 2, "MC": 2, "PC": 2}


def images_like_the_set(images_each: int = 2) -> list[Any]:
    """Return images of 82 patients, with three of phyllodes tumours and one under two subtypes; nothing on disk."""
    numbers = {"A": 4, "F": 10, "PT": 3, "TA": 7, "DC": 38, "LC": 5, "MC": 9, "PC": 6}
    images = []
    for code, number in numbers.items():
        for n in range(number):
            slide = simulate.TWICE if code in ("DC", "LC") and n == 0 else f"{code}{n}"
            for magnification in tree.MAGNIFICATIONS:
                for seq in range(images_each):
                    file = f"{code}/{slide}/{magnification}X/{seq}.png"
                    subtype = ({**tree.BENIGN, **tree.MALIGNANT})[code]
                    images.append(tree.BreakHisImage(file, slide, subtype, magnification))
    return images


@pytest.mark.parametrize("code", ["A", "F", "PT", "TA", "DC", "LC", "MC", "PC"])
def test_each_subtype_is_read_from_its_name(code: str) -> None:
    side = "B" if code in tree.BENIGN else "M"
    image = tree.read_name(Path(f"100X/SOB_{side}_{code}-14-22549AB-100-012.png"))
    assert (image.patient, image.magnification) == ("22549AB", 100)
    assert image.malignancy == {"B": "benign", "M": "malignant"}[side]
    assert tree.SUBTYPES.index(image.subtype) == list(PER_PATIENT).index(code)


def test_40x_is_not_400x_and_a_folder_that_says_otherwise_is_refused() -> None:
    for magnification in (40, 400):
        image = tree.read_name(Path(f"{magnification}X/SOB_M_DC-14-2523-{magnification}-001.png"))
        assert image.magnification == magnification
    with pytest.raises(ValueError, match="name says 40×, and its folder is 400X"):
        tree.read_name(Path("400X/SOB_M_DC-14-2523-40-001.png"))


@pytest.mark.parametrize(
    "name", ["SOB_B_DC-14-2523-40-001.png", "SOB_M_A-14-2523-40-001.png", "SOB_M_DC-14-2523-50-001.png", "a.png"]
)
def test_names_that_contradict_themselves_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        tree.read_name(Path(name))


def test_the_counts_of_the_whole_set_come_out_of_a_tree_of_empty_files(tmp_path: Path) -> None:
    left = {(m, side): number for m, sides in tree.PUBLISHED_COUNTS.items() for side, number in enumerate(sides)}
    sides = (tree.BENIGN, tree.MALIGNANT)
    for code, total in tree.PUBLISHED_SUBTYPES.items():  # filled magnification by magnification
        side = code in tree.MALIGNANT
        for magnification in tree.MAGNIFICATIONS:
            taken = min(total, left[magnification, side])
            for number in range(taken):
                path = tmp_path / simulate.place_of(code, f"{1000 + len(code)}AB", magnification, number)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            left[magnification, side] -= taken
            total -= taken
        assert total == 0
    images, rejects = tree.read_breakhis(tmp_path)
    assert not rejects
    assert tree.count_images(images) == tree.PUBLISHED_COUNTS
    benign, malignant = (sum(i.subtype in side.values() for i in images) for side in sides)
    assert (benign, malignant, len(images)) == (2480, 5429, 7909)
    assert "not the whole set" not in tree.count_table(images)


def test_a_file_that_is_none_and_one_that_stands_twice_are_rejected_with_the_reason(tmp_path: Path) -> None:
    folder = simulate.write_tree(tmp_path / "tree", num_patients=8, num_images=1)
    (folder / "BreaKHis_v1" / "thumbnail.png").touch()
    name = "SOB_B_A-14-20000-40-001.png"
    copy = folder / "copies" / "40X" / name
    copy.parent.mkdir(parents=True)
    copy.touch()
    images = tree.write_table(folder, tmp_path / "table.csv")
    reasons = (tmp_path / "table.rejects.csv").read_text()
    assert "thumbnail.png,the name is not SOB_" in reasons
    assert "an image of this name stands at BreaKHis_v1/histology_slides/breast/benign" in reasons
    assert len(images) == len((tmp_path / "table.csv").read_text().splitlines()) - 1
    assert tree.count_images(images) == dict.fromkeys(tree.MAGNIFICATIONS, (5, 6))


@pytest.mark.parametrize("name", ["patient_cv", "patient_5fold_7030", "audit_holdout"])
def test_no_patient_is_on_two_sides_and_the_same_seed_divides_alike(name: str) -> None:
    images, protocol = images_like_the_set(), protocols.PROTOCOLS[name]
    divisions = protocol.divisions(images, seed=3)
    assert len(divisions) == 5
    for side in divisions:
        patients = [
            {i.patient for i, own in zip(images, side, strict=True) if own == s} for s in ("train", "val", "test")
        ]
        assert sum(map(len, patients)) == len(set.union(*patients)) == len({i.patient for i in images})
    again, other = protocol.divisions(images, seed=3), protocol.divisions(images, seed=4)
    assert all((a == b).all() for a, b in zip(divisions, again, strict=True))
    assert not all((a == b).all() for a, b in zip(divisions, other, strict=True))


def test_cross_validation_tests_each_image_once_and_spreads_the_subtypes() -> None:
    images = images_like_the_set()
    divisions = protocols.PROTOCOLS["patient_cv"].divisions(images)
    assert (np.sum([side == "test" for side in divisions], axis=0) == 1).all()
    for side in divisions:
        tested = Counter(i.subtype for i, own in zip(images, side, strict=True) if own == "test")
        assert 5 * 8 <= tested["ductal_carcinoma"] <= 10 * 8  # 38 patients in five folds
        assert len({i.malignancy for i, own in zip(images, side, strict=True) if own == "val"}) == 2


def test_the_patient_with_two_subtypes_is_whole() -> None:
    images = images_like_the_set()
    for side in protocols.PROTOCOLS["patient_cv"].divisions(images):
        sides = {own for i, own in zip(images, side, strict=True) if i.patient == simulate.TWICE}
        assert len(sides) == 1
    assert {i.subtype for i in images if i.patient == simulate.TWICE} == {"ductal_carcinoma", "lobular_carcinoma"}


def test_the_held_out_patients_are_sixteen_without_phyllodes_and_none_has_too_many_images() -> None:
    images = images_like_the_set()
    sides = protocols.PROTOCOLS["audit_holdout"].divisions(images)
    tests = [np.flatnonzero(side == "test").tolist() for side in sides]
    assert all(test == tests[0] for test in tests)
    sizes = Counter(images[i].patient for i in tests[0])
    assert 14 <= len(sizes) <= 16
    assert max(sizes.values()) <= protocols.LARGEST_SHARE * len(tests[0])
    assert "phyllodes_tumour" not in {images[i].subtype for i in tests[0]}
    validated = np.sum([side == "val" for side in sides], axis=0)
    assert (validated[sides[0] != "test"] == 1).all()


def test_the_fixed_patients_are_tested_at_40x_alone() -> None:
    assert (len(protocols.EVA_8C), len(protocols.EVA_4C)) == (25, 14)
    slides = sorted(protocols.EVA_4C | {f"9{n}" for n in range(20)})
    images = [
        tree.BreakHisImage(f"{s}/{m}X/{n}.png", s, protocols.EVA_4C_CLASSES[n % 4], m)
        for n, s in enumerate(slides)
        for m in (40, 100)
    ]
    (side,) = protocols.PROTOCOLS["eva_40x_4c"].divisions(images)
    assert {i.patient for i, own in zip(images, side, strict=True) if own == "test"} == protocols.EVA_4C
    assert all(own == "" for i, own in zip(images, side, strict=True) if i.magnification == 100)
    with pytest.raises(SystemExit, match="none of the patients that this protocol names"):
        protocols.PROTOCOLS["eva_40x_4c"].divisions(images_like_the_set())


def test_random_images_warn_of_leakage_and_do_leak(capsys: pytest.CaptureFixture[str]) -> None:
    images = images_like_the_set()
    side = protocols.PROTOCOLS["image_random"].divisions(images)[0]
    assert "WARNING: image_random divides images and not patients" in capsys.readouterr().out
    with pytest.raises(ValueError, match="of 81 patients are on two sides"):
        protocols.check_sides(images, side)


def answers_of(right: dict[str, list[bool]], truth: int = 1) -> Any:
    """Return answers of two classes: of each patient's images whether they are right."""
    patients = tuple(p for p, answers in right.items() for _ in answers)
    hits = np.array([hit for answers in right.values() for hit in answers])
    truth_N = np.full(len(hits), truth, np.int64)
    p_N = np.where(hits == (truth_N == 1), 0.8, 0.3)
    return figures.Tested(patients, truth_N, np.log(np.stack([1 - p_N, p_N], axis=1)))


def test_each_patient_counts_once_in_the_recognition_rate() -> None:
    measured = figures.measure_tested(answers_of({"P1": [True] * 10, "P2": [True, False]}), num_resamples=50)
    assert measured["image_rate"].value == pytest.approx(11 / 12)
    assert measured["prr"].value == pytest.approx(0.75)
    assert measured["patient_accuracy"].value == 1.0  # 0.8 and 0.3: their mean is malignant


def test_the_recognition_rate_is_the_image_rate_where_all_have_as_many_images() -> None:
    rng = np.random.default_rng(0)
    right = {f"P{n}": (rng.random(6) < 0.7).tolist() for n in range(20)}
    measured = figures.measure_tested(answers_of(right), num_resamples=200)
    assert measured["prr"].value == pytest.approx(measured["image_rate"].value)
    assert measured["prr"].drawn_B == pytest.approx(measured["image_rate"].drawn_B)
    interval = interval_of(measured["prr"])
    assert interval.low < measured["prr"].value < interval.high


def test_the_joint_head_adds_up_the_malignant_classes() -> None:
    logits = np.random.default_rng(1).normal(size=(9, 8)) * 4
    p_NC = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    both = figures.joint_binary(logits, len(tree.BENIGN))
    assert np.exp(both[:, 1]) == pytest.approx(p_NC[:, 4:].sum(axis=1))
    lead = np.log(np.exp(logits[:, 4:]).sum(axis=1)) - np.log(np.exp(logits[:, :4]).sum(axis=1))
    assert both[:, 1] - both[:, 0] == pytest.approx(lead)


def test_a_locked_threshold_decides_sensitivity_and_moves_nothing_else() -> None:
    one = answers_of({"P1": [True, True, False, True]})
    benign = answers_of({"P2": [True, False]}, truth=0)
    both = figures.joined([one, benign])
    locked = figures.Tested(both.patients, both.truth_N, both.scores_NC, np.full(6, 2.0))
    measured = figures.measure_tested(locked, num_resamples=20)
    assert measured["sensitivity"].value == 0.0  # log odds of 0.8 are 1.39
    assert measured["specificity"].value == 1.0
    assert measured["image_rate"].value == pytest.approx(4 / 6)
    lower = figures.Tested(both.patients, both.truth_N, both.scores_NC, np.full(6, -2.0))
    assert figures.measure_tested(lower, num_resamples=20)["sensitivity"].value == 1.0


def test_the_threshold_is_that_of_validation_patients_and_missing_where_they_are_of_one_class() -> None:
    lead = np.array([-2.0, -1.0, 0.5, 1.5])
    assert figures.lock_threshold(lead, np.array([0, 0, 1, 1])) == 0.5
    assert np.isnan(figures.lock_threshold(lead, np.ones(4, np.int64)))


def test_a_patient_with_images_of_two_labels_has_two_decisions() -> None:
    both = figures.joined([answers_of({"P1": [True, True]}), answers_of({"P1": [True], "P2": [True]}, truth=0)])
    decisions = figures.by_patient(figures.Tested(both.patients, both.truth_N, both.scores_NC))
    assert list(zip(decisions.patients, decisions.truth_N.tolist(), strict=True)) == [("P1", 1), ("P1", 0), ("P2", 0)]


def test_two_ways_are_compared_over_the_same_patients() -> None:
    rng = np.random.default_rng(2)
    good = {f"P{n}": (rng.random(8) < 0.95).tolist() for n in range(30)}
    bad = {f"P{n}": (rng.random(8) < 0.6).tolist() for n in range(30)}
    one, other = (figures.measure_tested(answers_of(right), num_resamples=300)["image_rate"] for right in (bad, good))
    apart = difference(one, other)
    assert apart.low > 0
    assert apart.value == pytest.approx(other.value - one.value)


def test_calibration_is_near_nothing_for_true_probabilities_and_large_for_false_ones() -> None:
    rng = np.random.default_rng(3)
    p_N = rng.uniform(0.05, 0.95, 2000)
    truth_N = (rng.random(2000) < p_N).astype(np.int64)
    patients = tuple(f"P{n // 10}" for n in range(2000))
    true, false = (
        figures.calibration(figures.Tested(patients, truth_N, np.log(np.stack([1 - p, p], axis=1))), num_resamples=100)
        for p in (p_N, 1 - p_N)
    )
    assert true.value < 0.04 < 0.3 < false.value
    scores = figures.Tested(patients, truth_N, np.stack([-p_N, p_N], axis=1), probability=False)
    assert figures.calibration(scores) is None


def test_models_of_the_same_test_patients_are_averaged_as_probabilities() -> None:
    one, other = answers_of({"P1": [True, False]}), answers_of({"P1": [False, False]})
    mean = figures.averaged([one, other])
    assert np.exp(mean.scores_NC[:, 1]) == pytest.approx([0.55, 0.3])
