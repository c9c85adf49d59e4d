from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import MedclipError
from medclip.pairs.selection.patches import (
    SelectionOptions,
    attribute_scores,
    choose_patches,
    cluster_patches,
    draw_from_clusters,
    finding_scores,
    number_of_clusters,
    unlike_rows,
)


def unit(rng: np.random.Generator, num: int, dim: int = 8) -> np.ndarray:
    vectors = rng.normal(size=(num, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_the_attribute_score_is_100_for_the_patch_that_matches_and_a_maximum():
    assert attribute_scores(np.eye(4), np.eye(4)[:2]).tolist() == [100, 100, 0, 0]
    assert attribute_scores(np.eye(4), np.eye(4)[[1, 1]]).tolist() == [0, 100, 0, 0]


def test_the_finding_score_adds_up_over_prompts():
    assert finding_scores(np.eye(4), np.eye(4)[[1, 1]]).tolist() == [0, 200, 0, 0]


def test_any_number_of_attributes_and_findings_is_scored_apart():
    """The reference splits the columns at a fixed 20, and adds each slide's findings to the attributes of the next."""
    features = unit(np.random.default_rng(0), 30)
    attributes, findings = features[:3], features[5:12]
    assert np.allclose(attribute_scores(features, attributes), 100 * (features @ attributes.T).max(1))
    assert np.allclose(finding_scores(features, findings), 100 * (features @ findings.T).sum(1), atol=1e-3)
    assert attribute_scores(features, features[:0]).tolist() == finding_scores(features, features[:0]).tolist()


def test_the_number_of_clusters_is_that_of_the_reference_unless_patches_are_counted():
    assert number_of_clusters(5000) == 8
    assert number_of_clusters(5000, 1) == 90
    assert number_of_clusters(1) == 1
    assert number_of_clusters(3, 1) == 3


def test_eight_clusters_give_at_most_32_each_and_256_in_all_and_a_small_one_all_it_has():
    clusters = np.repeat(np.arange(8), [50, 5, 100, 40, 33, 32, 31, 400])
    drawn = draw_from_clusters(clusters, 256)
    counts = np.bincount(clusters[drawn], minlength=8)
    assert counts.tolist() == [32, 5, 32, 32, 32, 32, 31, 32]
    assert len(set(drawn)) == len(drawn) <= 256


def test_more_clusters_than_patches_are_wanted_give_one_each_up_to_the_number():
    drawn = draw_from_clusters(np.repeat(np.arange(300), 2), 256)
    assert len(drawn) == 256


def test_clusters_and_draws_are_the_same_every_time():
    features = unit(np.random.default_rng(0), 400)
    first, again = (cluster_patches(features, 5) for _ in range(2))
    assert np.array_equal(first, again)
    assert draw_from_clusters(first, 20, seed=1) == draw_from_clusters(again, 20, seed=1)
    assert draw_from_clusters(first, 20, seed=1) != draw_from_clusters(first, 20, seed=2)


def test_copies_of_one_patch_make_one_cluster_and_no_warning():
    assert set(cluster_patches(np.ones((5, 3)) / 3**0.5, 4)) == {0}


def test_copies_collapse_to_the_one_with_the_best_score():
    features = np.eye(3)[[0, 0, 0, 1]]
    assert unlike_rows(features, np.array([1, 3, 2, 0]), 0.95) == [1, 3]
    assert unlike_rows(features, np.array([1, 3, 2, 0]), 1.0) == [1, 3]


seeds = st.integers(0, 10_000)


@given(seeds)
def test_what_is_kept_does_not_depend_on_the_order(seed):
    rng = np.random.default_rng(seed)
    features, scores = unit(rng, 40, 3), rng.permutation(40).astype(float)
    order = rng.permutation(40)
    kept = unlike_rows(features, scores, 0.9)
    assert sorted(order[unlike_rows(features[order], scores[order], 0.9)]) == sorted(kept)
    assert int(scores.argmax()) == kept[0]


@given(seeds)
def test_a_higher_threshold_keeps_all_that_a_lower_one_keeps(seed):
    rng = np.random.default_rng(seed)
    features, scores = unit(rng, 60, 3), rng.normal(size=60)
    kept = [set(unlike_rows(features, scores, cosine)) for cosine in (0.5, 0.8, 0.9, 0.95, 0.99)]
    assert all(few <= many for few, many in pairwise(kept))


@given(seeds)
def test_no_two_kept_are_too_much_alike_and_each_other_is_like_a_kept_one(seed):
    rng = np.random.default_rng(seed)
    features = unit(rng, 60, 3)
    kept = unlike_rows(features, rng.normal(size=60), 0.9)
    cosines = features[kept] @ features.T
    assert all(np.sort(row)[::-1][1] <= 0.9 + 1e-6 for row in cosines[:, kept]) or len(kept) == 1
    assert (cosines.max(0) > 0.9 - 1e-6).all()


def test_taking_patches_in_the_order_of_scores_would_keep_fewer_at_a_higher_threshold():
    """Why the obvious way is not taken: b lies between a and two others; once b is kept, both go."""

    def at(along: float, aside: float) -> list[float]:
        """Degrees from the first axis: along a great circle, and from there aside of it."""
        along, aside = np.radians(along), np.radians(aside)
        return [np.cos(aside) * np.cos(along), np.cos(aside) * np.sin(along), np.sin(aside)]

    features = np.array([at(0, 0), at(16.5, 0), at(25, 10.5), at(25, -10.5)])

    def obvious(limit: float) -> int:
        kept: list[int] = []
        for row in range(4):
            if all(features[row] @ features[other] <= limit for other in kept):
                kept.append(row)
        return len(kept)

    assert (obvious(0.95), obvious(0.97)) == (3, 2)
    low, high = (set(unlike_rows(features, np.arange(4, 0, -1), limit)) for limit in (0.95, 0.97))
    assert low <= high


def test_a_patch_knows_which_branches_chose_it_and_which_attribute_it_shows():
    features = np.eye(8, dtype=np.float32)
    options = SelectionOptions(num_by_attributes=1, num_by_findings=1, num_by_clusters=0)
    first, second = choose_patches(features, features[[2, 3]], features[[6]], options)
    assert (first.row, first.branches, first.attribute, first.attribute_score) == (2, ("attribute",), 0, 100)
    assert (second.row, second.branches, second.finding_score, second.cluster) == (6, ("finding",), 100, None)


def test_of_two_alike_the_one_that_was_asked_for_stays():
    features = np.eye(4, dtype=np.float32)[[0, 0, 1, 2]]
    features[1] = [0.999, np.sqrt(1 - 0.999**2), 0, 0]
    options = SelectionOptions(num_by_attributes=1, num_by_findings=0, num_by_clusters=4, cluster_batch=1)
    chosen = choose_patches(features, features[[1]], features[:0], options)
    assert 1 in [patch.row for patch in chosen]
    assert 0 not in [patch.row for patch in chosen]


def test_of_two_alike_a_patch_that_fits_an_attribute_stays_and_not_one_that_fits_many_findings_a_little():
    features = np.array([[1.0, 0.0], [0.96, 0.28]])
    attributes, findings = np.array([[1.0, 0.0]]), np.array([[0.6, 0.8]] * 2)
    options = SelectionOptions(num_by_attributes=1, num_by_findings=1, num_by_clusters=0)
    (chosen,) = choose_patches(features, attributes, findings, options)
    assert (chosen.row, chosen.branches) == (0, ("attribute",))


def test_a_selection_is_the_same_every_time_and_its_numbers_hold():
    features = unit(np.random.default_rng(0), 2000, 32)
    prompts = unit(np.random.default_rng(1), 20, 32)
    options = SelectionOptions(16, 8, 64)
    chosen = choose_patches(features, prompts[:12], prompts[12:], options)
    assert chosen == choose_patches(features, prompts[:12], prompts[12:], options)
    counts = {name: sum(name in patch.branches for patch in chosen) for name in ("attribute", "finding", "cluster")}
    assert counts["attribute"] <= 16
    assert counts["finding"] <= 8
    assert 40 <= counts["cluster"] <= 64
    assert [patch.row for patch in chosen] == sorted({patch.row for patch in chosen})


def test_a_slide_without_patches_and_one_without_prompts_are_no_errors():
    none = np.zeros((0, 8), np.float32)
    assert choose_patches(none, none, none) == ()
    features = unit(np.random.default_rng(0), 10)
    assert {patch.branches for patch in choose_patches(features, none, none)} == {("cluster",)}


def test_a_selection_of_nothing_is_refused():
    with pytest.raises(MedclipError, match="not all 0"):
        SelectionOptions(0, 0, 0)
    with pytest.raises(MedclipError, match="cosine from -1 to 1"):
        SelectionOptions(most_cosine=1.5)
