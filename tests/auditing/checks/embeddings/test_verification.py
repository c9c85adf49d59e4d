"""Verification over pairs: against scikit-learn, by hand, and with only part of the pairs kept."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medclip.auditing.checks.embeddings import verification as module
from medclip.auditing.checks.embeddings.verification import Impostors, Pairs, genuine_pairs, linkage, pair_rows
from medclip.statistics.resampling.resampled import interval_of, share
from medclip.statistics.resampling.standard_errors import effective_patients
from medclip.statistics.resampling.weights import draw_weights
from tests.kits.audit_embeddings import of_patients, people


def collected(vectors: np.ndarray, patients: np.ndarray, block: int = 7) -> Impostors:
    count = len(vectors)
    impostors = Impostors(count * (count - 1) // 2)
    first, second = np.triu_indices(count, 1)
    other = patients[first] != patients[second]
    first, second = first[other], second[other]
    cosines = np.einsum("md,md->m", vectors[first], vectors[second])
    for s in range(0, len(first), block):
        part = slice(s, s + block)
        impostors.add(Pairs(cosines[part], patients[first[part]], patients[second[part]]))
    return impostors


@pytest.fixture(scope="module")
def sample() -> tuple[np.ndarray, np.ndarray, Pairs]:
    patients = people(60).astype(np.int32)
    vectors = of_patients(patients, 0.8)
    return vectors, patients, genuine_pairs(vectors, patients, (np.arange(len(patients)),))


def test_pairs_of_one_patient_differ_in_every_group_and_nothing_unknown_is_paired() -> None:
    patients = np.array([0, 0, 0, 1, 1, 2])
    studies = np.array([0, 0, 1, 0, -1, 0])
    captures = np.arange(6)
    first, second = pair_rows(patients, (studies, captures))
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [(0, 2), (1, 2)]
    assert len(pair_rows(np.arange(4), (np.arange(4),))[0]) == 0


def test_auroc_is_that_of_scikit_learn_and_linkage_that_of_sorting(sample) -> None:
    vectors, patients, genuine = sample
    impostors = collected(vectors, patients)
    found = linkage(genuine, impostors, draw_weights(60, 20, seed=0))
    even = impostors.even()
    scores = np.r_[genuine.cosine_M, even.cosine_M]
    truth = np.r_[np.ones(len(genuine.cosine_M)), np.zeros(len(even.cosine_M))]
    assert found.auroc.value == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    threshold = np.sort(even.cosine_M)[::-1][int(1e-3 * len(even.cosine_M))]
    assert found.linked.value == (genuine.cosine_M > threshold).mean()
    assert np.mean(even.cosine_M > threshold) <= 1e-3
    assert found.num_impostors == len(even.cosine_M)
    assert found.auroc.low < found.auroc.value < found.auroc.high


def test_a_replicate_is_that_of_repeated_patients(sample) -> None:
    vectors, patients, genuine = sample
    weights = draw_weights(60, 40, seed=3)
    impostors = collected(vectors, patients)
    found = linkage(genuine, impostors, weights)
    even = impostors.even()
    areas = []
    for drawn in weights.T.astype(float):
        w = np.r_[drawn[genuine.first_M], drawn[even.first_M] * drawn[even.second_M]]
        truth = np.r_[np.ones(len(genuine.cosine_M)), np.zeros(len(even.cosine_M))]
        areas.append(roc_auc_score(truth, np.r_[genuine.cosine_M, even.cosine_M], sample_weight=w))
    owners, num = effective_patients(genuine.first_M), len(genuine.cosine_M)
    pairs = (num, len(even.cosine_M))
    expected = interval_of(share(found.auroc.value, np.array(areas), cases=num, patients=owners, pairs=pairs))
    assert (found.auroc.low, found.auroc.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_with_part_of_the_pairs_the_threshold_is_exact_and_the_rest_nearly(sample, monkeypatch) -> None:
    vectors, patients, genuine = sample
    weights = draw_weights(60, 50, seed=1)
    everything = collected(vectors, patients)
    whole = linkage(genuine, everything, weights)
    every = everything.near().cosine_M
    monkeypatch.setattr(module, "_KEPT", 2000)
    impostors = collected(vectors, patients, block=311)
    assert impostors.stride > 1
    part = linkage(genuine, impostors, weights)
    assert part.linked.value == pytest.approx(whole.linked.value, abs=0.02)
    assert (part.linked.low, part.linked.high) == pytest.approx((whole.linked.low, whole.linked.high), abs=0.04)
    assert part.auroc.value == pytest.approx(whole.auroc.value, abs=0.02)
    assert 2000 <= len(impostors.near().cosine_M) < len(every)
    np.testing.assert_array_equal(impostors.near().cosine_M, every[: len(impostors.near().cosine_M)])


def test_all_or_none_linked_has_an_interval_of_some_width() -> None:
    patients = np.repeat(np.arange(20, dtype=np.int32), 2)
    weights = draw_weights(20, 50, seed=0)
    studies = np.arange(40)
    all_linked = np.eye(20, dtype=np.float32)[patients]
    found = linkage(genuine_pairs(all_linked, patients, (studies,)), collected(all_linked, patients), weights)
    assert found.linked.value == 1
    assert 0.7 < found.linked.low < found.linked.high == 1
    assert found.equal_error.value == 0
    # what is exactly alike cannot be told apart
    same = np.ones((40, 1), np.float32)
    found = linkage(genuine_pairs(same, patients, (studies,)), collected(same, patients), weights)
    assert found.auroc.value == 0.5
    assert found.linked.value == 0
    assert 0 == found.linked.low < found.linked.high < 0.3
