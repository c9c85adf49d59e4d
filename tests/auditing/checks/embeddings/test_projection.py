"""The two-dimensional view and the distances of means."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from medclip.auditing.checks.embeddings.projection import centroids, fit_plane, mean_differences, projection
from tests.kits.audit_embeddings import attribute, named, noise, of_patients, people

PATIENTS = people(60)
CODES = (np.arange(60) % 2)[PATIENTS]
TWO = attribute(CODES, ("F", "M"))


def test_the_axes_are_those_of_scikit_learn_with_a_sign_that_never_turns() -> None:
    values = of_patients(PATIENTS, 1.0)
    plane = fit_plane(values)
    other = PCA(2, svd_solver="full").fit(values)
    np.testing.assert_allclose(plane.explained_2, other.explained_variance_ratio_, rtol=1e-5)
    np.testing.assert_allclose(np.abs(plane.points(values)), np.abs(other.transform(values)), atol=1e-5)
    for axis in plane.axes_2D:
        assert axis[np.abs(axis).argmax()] > 0
    order = np.random.default_rng(0).permutation(len(values))
    np.testing.assert_allclose(fit_plane(values[order]).axes_2D, plane.axes_2D, atol=1e-6)


def test_vectors_along_one_line_or_of_one_dimension_have_no_second_axis() -> None:
    plane = fit_plane(np.arange(5.0)[:, None])
    assert plane.axes_2D.tolist() == [[1.0], [0.0]]
    assert plane.explained_2.tolist() == [1.0, 0.0]
    assert (fit_plane(np.ones((4, 3))).explained_2 == 0).all()


def _tens(counts: np.ndarray) -> int:
    return int((counts - counts % 10).sum())


def test_points_carry_groups_that_may_be_shown_and_no_order() -> None:
    codes = CODES.copy()
    codes[PATIENTS < 3] = 2
    vectors = noise(len(PATIENTS))
    vectors[0] = np.nan
    rows, notes = projection(vectors, PATIENTS, [attribute(codes, ("F", "M", "X"))])
    assert {r["group"] for r in rows} == {"F", "M"}
    assert len(rows) == _tens(np.bincount(codes[codes < 2]))
    xs = [r["x"] for r in rows]
    assert xs == sorted(xs)
    assert "of the variance" in notes[0]
    assert "one of the" not in notes[0]
    drawn, _ = projection(vectors, PATIENTS, [TWO], most=40)
    assert len(drawn) <= 40
    assert projection(vectors[:2], PATIENTS[:2], [])[0] == []
    assert projection(vectors, PATIENTS, [])[0] == []


def test_each_patient_is_in_the_image_of_one_attribute_only_on_the_same_axes() -> None:
    vectors = of_patients(PATIENTS, 1.0)
    vectors[5] = np.nan
    whose = dict(zip(map(tuple, _places(vectors)), PATIENTS.tolist(), strict=True))
    attributes = [attribute(CODES, ("F", "M"), name) for name in ("sex", "site", "device")]
    rows, (said,) = projection(vectors, PATIENTS, attributes, fewest=3)
    shown = {a.name: [whose[r["x"], r["y"]] for r in rows if r["attribute"] == a.name] for a in attributes}
    assert all(len(found) >= 20 for found in shown.values())
    assert sum(len(set(found)) for found in shown.values()) == len(set().union(*shown.values()))
    assert len(rows) == len({(r["x"], r["y"]) for r in rows})
    assert "one of the 3 attributes only" in said
    assert projection(vectors, PATIENTS, attributes, fewest=3)[0] == rows
    other = projection(vectors, PATIENTS, attributes, fewest=3, seed=1)[0]
    assert {(r["x"], r["y"]) for r in other if r["attribute"] == "sex"} != {
        (r["x"], r["y"]) for r in rows if r["attribute"] == "sex"
    }


def _places(vectors: np.ndarray) -> np.ndarray:
    return np.round(fit_plane(vectors[~np.isnan(vectors).any(axis=1)]).points(vectors), 4)


def test_a_planted_dimension_is_found_and_chance_is_not() -> None:
    vectors = noise(len(PATIENTS), 12)
    vectors[:, 7] += 0.5 * CODES
    rows = centroids(vectors, PATIENTS, TWO, num_permutations=99)
    norm = named(rows, "F minus M: distance of means")
    assert norm["p"] == 0.01
    assert "by chance" in norm["note"]
    dimensions = [r for r in rows if "dimension" in r["name"]]
    assert dimensions[0]["name"] == "F minus M: dimension 7"
    assert dimensions[0]["value"] == pytest.approx(-0.5, abs=0.15)
    assert len(dimensions) == 10
    chance = [
        named(
            centroids(of_patients(PATIENTS, 1.0, seed=s), PATIENTS, TWO, num_permutations=49, seed=s),
            "F minus M: distance of means",
        )["p"]
        for s in range(20)
    ]
    assert np.mean(np.array(chance) <= 0.05) <= 0.2
    assert 0.25 < np.mean(chance) < 0.75


def test_three_groups_are_each_compared_with_the_rest_and_one_is_not() -> None:
    three = attribute((np.arange(60) % 3)[PATIENTS], ("a", "b", "c"))
    rows = centroids(noise(len(PATIENTS)), PATIENTS, three, num_permutations=9)
    assert [r["name"] for r in rows if "distance" in r["name"]] == [
        f"{g} minus all others: distance of means" for g in "abc"
    ]
    rows = centroids(noise(len(PATIENTS)), PATIENTS, attribute(CODES * 0, ("a",)))
    assert rows[0]["note"].startswith("Not measured")


def test_differences_of_means_by_hand() -> None:
    values = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    np.testing.assert_allclose(mean_differences(values, np.array([[True, True, False]])), [[2.0, -4.0]])
    assert np.isnan(mean_differences(values, np.ones((1, 3), bool))).all()
