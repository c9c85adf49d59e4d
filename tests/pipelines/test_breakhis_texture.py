"""pipelines/breakhis/texture.py: the texture survey's classifiers, descriptors, and what leakage does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tests.kits.breakhis import module_of

texture, simulate, protocols, tree = (module_of(n) for n in ("texture", "simulate", "protocols", "tree"))
CLASSIFIERS = ["1-NN", "LDA", "SVM"]
ALL = [*CLASSIFIERS, "logistic"]


def fitted(name: str, features: np.ndarray, truth: np.ndarray, standardize: bool = False) -> Any:
    return texture.fit_probe(name, standardize, features, truth, [f"P{n // 2}" for n in range(len(truth))])


def blobs(num: int = 60, dim: int = 6, apart: float = 3.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.arange(num) % 3
    return rng.normal(size=(num, dim)) + apart * np.eye(3, dim)[truth], truth


@pytest.mark.golden
@pytest.mark.parametrize(("name", "stored"), [("1-NN", "knn1"), ("LDA", "lda"), ("SVM", "svm")])
def test_the_classifiers_answer_as_the_survey_has_them(golden: Path, name: str, stored: str) -> None:
    z = np.load(golden / "texture_probes.npz")
    num = int(z["n_train"])
    model = fitted(name, z["X"][:num], z["y"][:num])
    assert (model.predict(z["X"][num:]) == z[f"pred_{stored}"]).all()
    assert (model.predict(z["X"][num:]) == z["y"][num:]).mean() == pytest.approx(float(z[f"acc_{stored}"]))
    if name == "LDA":
        assert model.decision_function(z["X"][num:]) == pytest.approx(z["lda_decision"], abs=1e-6)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_two_classes_on_a_line_are_parted_in_the_middle(name: str) -> None:
    model = fitted(name, np.array([[0.0], [1], [4], [5]]), np.array([0, 0, 1, 1]))
    assert model.predict([[2.45], [2.55]]).tolist() == [0, 1]


def test_the_nearest_neighbour_knows_what_it_has_learned() -> None:
    features, truth = blobs(apart=0.1)
    assert (fitted("1-NN", features, truth).predict(features) == truth).all()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_shuffled_labels_are_answered_by_chance(name: str) -> None:
    features, truth = blobs(300, apart=2.0)
    shuffled = np.random.default_rng(1).permutation(truth)
    rate = (fitted(name, features[:200], shuffled[:200]).predict(features[200:]) == shuffled[200:]).mean()
    assert abs(rate - 1 / 3) < 3 * np.sqrt(2 / 9 / 100)
    assert (fitted(name, features[:200], truth[:200]).predict(features[200:]) == truth[200:]).mean() > 0.6


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_order_of_rows_does_not_matter(name: str) -> None:
    features, truth = blobs()
    order = np.random.default_rng(2).permutation(len(truth))
    new = blobs(30, seed=5)[0]
    one, other = fitted(name, features, truth), fitted(name, features[order], truth[order])
    assert (one.predict(new) == other.predict(new)).all()


def test_a_rotation_leaves_neighbours_alone_and_a_stretch_the_discriminant_whose_shrinkage_is_estimated() -> None:
    features, truth = blobs(apart=1.0)
    new = blobs(200, apart=1.0, seed=5)[0]
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(6, 6)))[0]
    one, other = fitted("1-NN", features, truth), fitted("1-NN", features @ rotation, truth)
    assert (one.predict(new) == other.predict(new @ rotation)).all()
    stretch = np.array([30.0, 1, 1, 1, 1, 0.1])
    plain = fitted("LDA", features, truth).decision_function(new)
    # scikit-learn estimates the shrinkage of columns that it has scaled, so that a second column would be the same.
    assert fitted("LDA", features * stretch, truth).decision_function(new * stretch) == pytest.approx(plain)
    assert not np.allclose(
        fitted("LDA", features @ rotation, truth).decision_function(new @ rotation), plain, atol=1e-3
    )
    assert ("LDA", True) not in texture.COLUMNS


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("standardize", [False, True])
def test_constant_features_are_answered_with_the_majority(name: str, standardize: bool) -> None:
    truth = np.array([0, 1, 1, 1, 2, 1])
    model = fitted(name, np.ones((6, 4)), truth, standardize)
    assert (texture.probe_scores(model, np.ones((3, 4)), 3).argmax(axis=1) == 1).all()


@pytest.mark.parametrize("name", ALL)
def test_a_class_that_was_not_learned_is_never_the_answer(name: str) -> None:
    features, truth = blobs()
    kept = truth != 1
    model = fitted(name, features[kept], truth[kept], True)
    scores = texture.probe_scores(model, features, 3)
    assert scores.shape == (60, 3)
    assert (scores.argmax(axis=1) != 1).all()
    assert (scores.argmax(axis=1)[kept] == truth[kept]).mean() > 0.8
    assert texture.gives_probabilities(model) == (name in ("LDA", "logistic"))


def test_the_strength_is_chosen_on_patients_that_are_held_out() -> None:
    features = np.repeat(np.random.default_rng(4).normal(size=(24, 15)), 3, axis=0)  # a patient's images are alike
    truth = np.repeat(np.arange(24) % 2, 3)
    by_patient = texture._strength(features, truth, [f"P{n // 3}" for n in range(72)], True, 0)
    by_image = texture._strength(features, truth, [str(n) for n in range(72)], True, 0)
    assert by_patient <= 0.1 < 1 < by_image


def test_the_logistic_regression_is_scikit_learns() -> None:
    features, truth = blobs(90, apart=1.0)
    own = texture.Multinomial(0.3).fit(features, truth)
    theirs = LogisticRegression(C=0.3, max_iter=5000, tol=1e-8).fit(features, truth)
    new = blobs(50, seed=9)[0]
    assert own.predict_proba(new) == pytest.approx(theirs.predict_proba(new), abs=1e-4)
    assert (own.predict(new) == theirs.predict(new)).all()


def test_descriptors_have_their_size_and_see_texture_and_colour() -> None:
    rng = np.random.default_rng(0)
    fine = np.repeat(rng.integers(0, 255, (64, 96, 1), dtype=np.uint8), 3, axis=2)
    smooth = np.full((64, 96, 3), (200, 120, 180), np.uint8)
    one, other = (texture.texture_descriptor(image) for image in (fine, smooth))
    assert one.shape == other.shape == (10 + 18 + 26 + 48 + 24,)
    assert np.isfinite([one, other]).all()
    assert one[54:66].min() > other[54:66].max()  # contrast
    assert texture.colour_descriptor(smooth) == pytest.approx([200 / 255, 120 / 255, 180 / 255, 0, 0, 0])


def test_a_gabor_filter_answers_to_its_own_frequency() -> None:
    x = np.arange(96)
    means = []
    for frequency in texture.GABOR_FREQUENCIES:
        wave = np.tile(0.5 + 0.4 * np.cos(2 * np.pi * frequency * x), (96, 1))
        means.append(texture._gabor(wave)[::8].tolist())  # the first direction of each frequency: mean magnitude
    assert [int(np.argmax(row)) for row in means] == [0, 1, 2]


def test_colour_of_patients_is_known_again_on_random_images_and_worth_nothing_on_new_patients(tmp_path: Path) -> None:
    folder = simulate.write_tree(tmp_path, num_patients=40, num_images=2, signal="patient")
    images, _ = tree.read_breakhis(folder)
    features = texture.describe_files("colour", [folder / image.file for image in images])
    truth = np.array([image.malignancy == "malignant" for image in images]).astype(np.int64)
    rates = {}
    for name in ("image_random", "patient_cv"):
        right, num = 0, 0
        for side in protocols.PROTOCOLS[name].divisions(images):
            train, test = np.flatnonzero(side == "train"), np.flatnonzero(side == "test")
            patients = [images[i].patient for i in train]
            model = texture.fit_probe("1-NN", False, features[train], truth[train], patients)
            right += (model.predict(features[test]) == truth[test]).sum()
            num += len(test)
        rates[name] = right / num
    assert rates["image_random"] > 0.95
    assert abs(rates["patient_cv"] - 0.5) < 3 * 0.5 / np.sqrt(41)
