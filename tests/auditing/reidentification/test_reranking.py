"""k-reciprocal re-ranking against golden vectors, its own limits and a slow form with sets."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from medclip.auditing.reidentification.reranking import MOST_ITEMS, rerank, rerank_all
from medclip.auditing.reidentification.retrieval import rank
from medclip.errors import MedclipError, Reason

GOLDEN = "clip_reident.npz"
NAME = re.compile(r"rerank_k(\d+)_k(\d+)_l(\d+)p(\d+)")


@pytest.mark.golden
def test_golden_distances_of_every_setting(golden: Path) -> None:
    stored = np.load(golden / GOLDEN)
    settings = [(name, NAME.fullmatch(name)) for name in stored.files if NAME.fullmatch(name)]
    assert settings
    for name, match in settings:
        k1, k2, whole, tenths = match.groups()
        found = rerank(
            stored["dist_qq"],
            stored["dist_qg"],
            stored["dist_gg"],
            k1=int(k1),
            k2=int(k2),
            weight=float(f"{whole}.{tenths}"),
        )
        np.testing.assert_allclose(found, stored[name], atol=1e-5)


@pytest.mark.golden
def test_golden_mean_average_precision_before_and_after_and_ranks(golden: Path) -> None:
    stored = np.load(golden / GOLDEN)
    right = stored["query_ids"][:, None] == stored["gallery_ids"]
    before = rank(stored["dist_qg"], right, ~right)
    assert before.precision_Q.mean() == pytest.approx(float(stored["mAP"]), abs=1e-6)
    places = np.arange(1, len(stored["cmc_first_match"]) + 1)
    np.testing.assert_allclose((before.first_Q[:, None] <= places).mean(0), stored["cmc_first_match"], atol=1e-6)
    averaged = [name for name in stored.files if (match := NAME.fullmatch(name)) and match[2] != "1"]
    assert len(averaged) == 1
    after = rank(stored[averaged[0]], right, ~right)
    assert after.precision_Q.mean() == pytest.approx(float(stored["mAP_reranked"]), abs=1e-6)


def slow(distances: np.ndarray, k1: int, k2: int, weight: float) -> np.ndarray:
    """The same, step by step with sets."""
    squared = distances.astype(float) ** 2
    original = (squared / squared.max(axis=0)).T
    order = np.argsort(original, axis=1, kind="stable")
    n = len(order)

    def mutual(i: int, k: int) -> set[int]:
        return {int(j) for j in order[i, : k + 1] if i in order[j, : k + 1]}

    described = np.zeros((n, n))
    for i in range(n):
        own = mutual(i, k1)
        whole = set(own)
        for j in own:
            other = mutual(j, round(k1 / 2))
            if len(other & own) > 2 / 3 * len(other):
                whole |= other
        chosen = sorted(whole)
        e = np.exp(-original[i, chosen])
        described[i, chosen] = e / e.sum()
    if k2 > 1:
        described = np.stack([described[order[i, :k2]].mean(axis=0) for i in range(n)])
    overlap = np.minimum(described[:, None], described[None]).sum(axis=2)
    return (1 - weight) * (1 - overlap / (2 - overlap)) + weight * original


@pytest.mark.parametrize(("k1", "k2", "weight"), [(5, 3, 0.3), (8, 1, 0.0), (3, 2, 1.0), (30, 6, 0.5)])
def test_agrees_with_sets(k1: int, k2: int, weight: float) -> None:
    values = np.random.default_rng(k1).normal(size=(25, 4))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    distances = np.clip(2 - 2 * values @ values.T, 0, None).astype(np.float32)
    np.testing.assert_allclose(
        rerank_all(distances, k1=k1, k2=k2, weight=weight), slow(distances, k1, k2, weight), atol=2e-6
    )


def test_a_weight_of_one_keeps_the_original_order() -> None:
    values = np.random.default_rng(0).normal(size=(30, 5))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    distances = np.clip(2 - 2 * values @ values.T, 0, None)
    found = rerank_all(distances, weight=1.0)
    assert (np.argsort(found, axis=1)[:, 1:] == np.argsort(distances, axis=1)[:, 1:]).all()


def test_items_that_are_all_alike_stay_alike() -> None:
    found = rerank_all(np.zeros((50, 50)))
    assert np.abs(found[:3, :3]).max() < 1e-5
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("shape", "options"), [((4, 5), {}), ((4, 4), {"k1": 0}), ((4, 4), {"weight": 1.5}), ((4, 4), {"k2": 0})]
)
def test_wrong_settings_are_refused(shape: tuple[int, int], options: dict) -> None:
    with pytest.raises(MedclipError, match="distances of shape") as caught:
        rerank_all(np.zeros(shape), **options)
    assert caught.value.reason is Reason.WRONG_USE


def test_too_many_items_are_refused_before_memory_is_taken() -> None:
    huge = np.broadcast_to(np.float32(0), (MOST_ITEMS + 1, MOST_ITEMS + 1))
    with pytest.raises(MedclipError, match="re-ranking takes at most") as caught:
        rerank_all(huge)
    assert caught.value.reason is Reason.TOO_LARGE
