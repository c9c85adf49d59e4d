"""k-reciprocal re-ranking: the authors' numbers, ties, and what the share of the plain distance does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medclip.auditing.checks.embeddings.patient_retrieval import rank
from medclip.auditing.checks.embeddings.reciprocal_neighbours import encode_neighbours
from tests.kits.audit_embeddings import noise, of_patients, people


@pytest.mark.golden
@pytest.mark.parametrize(("k2", "share", "name"), [(3, 0.3, "rerank_k6_k3_l0p3"), (1, 0.5, "rerank_k6_k1_l0p5")])
def test_golden_distances_after_re_ranking(golden: Path, k2: int, share: float, name: str) -> None:
    stored = np.load(golden / "clip_reident.npz")
    vectors = np.concatenate([stored["features_query"], stored["features_gallery"]])
    num = len(stored["features_query"])
    distances = encode_neighbours(vectors, k1=6, k2=k2, share=share).distances(slice(0, num))[:, num:]
    np.testing.assert_allclose(distances, stored[name], atol=1e-5)


@pytest.mark.golden
def test_golden_mean_average_precision_after_re_ranking(golden: Path) -> None:
    stored = np.load(golden / "clip_reident.npz")
    vectors = np.concatenate([stored["features_query"], stored["features_gallery"]])
    distances = encode_neighbours(vectors, k1=6, k2=3).distances(slice(0, 10))[:, 10:]
    right = stored["query_ids"][:, None] == stored["gallery_ids"]
    assert rank(distances, right, ~right).precision_Q.mean() == pytest.approx(float(stored["mAP_reranked"]), abs=1e-6)


def test_a_share_of_one_leaves_the_ranking_as_it_was() -> None:
    vectors = noise(50)
    distances = encode_neighbours(vectors, share=1).distances(slice(0, 50))
    np.testing.assert_array_equal(np.argsort(distances, axis=1), np.argsort(-(vectors @ vectors.T), axis=1))


def test_a_share_of_nothing_is_the_jaccard_distance_of_the_encodings() -> None:
    vectors = of_patients(people(20), 2.0)
    neighbours = encode_neighbours(vectors, k1=6, k2=3, share=0)
    dense = neighbours.encodings.toarray()
    np.testing.assert_allclose(dense.sum(axis=1), 1)
    low, high = (f(dense[:, None], dense[None]).sum(axis=2) for f in (np.minimum, np.maximum))
    np.testing.assert_allclose(neighbours.distances(slice(3, 9)), (1 - low / high)[3:9], atol=1e-6)


def test_more_equal_images_than_neighbours_are_at_distance_nothing_from_themselves() -> None:
    vectors = np.concatenate([np.repeat(noise(1), 60, axis=0), noise(20, seed=1)])
    distances = encode_neighbours(vectors).distances(slice(0, 80))
    assert np.isfinite(distances).all()
    np.testing.assert_allclose(np.diagonal(distances), 0, atol=1e-6)


def test_fewer_images_than_neighbours_are_all_each_others_neighbours() -> None:
    assert (encode_neighbours(noise(3)).encodings.toarray() > 0).all()
