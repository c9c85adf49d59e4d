from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medclip.retrieval import top_rows as module
from medclip.retrieval.top_rows import MEMORY_BYTES, top_rows
from tests.retrieval.test_vector_file import file_of


def plainly(vectors: np.ndarray, queries: np.ndarray, k: int, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = np.flatnonzero(wanted)
    products = queries[:, None].astype(np.float64) * vectors[rows].astype(np.float64)[None]
    scores = products.sum(axis=-1).astype(np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return rows[order], np.take_along_axis(scores, order, axis=1)


@given(
    num_rows=st.integers(1, 400),
    num_queries=st.integers(1, 6),
    k=st.integers(1, 60),
    distinct=st.integers(1, 400),
    share=st.sampled_from([0.02, 0.5, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_best_rows_are_those_of_a_full_sort_and_equal_vectors_come_by_their_number(
    tmp_path_factory: pytest.TempPathFactory,
    num_rows: int,
    num_queries: int,
    k: int,
    distinct: int,
    share: float,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    pool = rng.standard_normal((distinct, 7)).astype(np.float32)
    pool /= np.linalg.norm(pool, axis=1, keepdims=True)
    vectors = pool[rng.integers(0, distinct, num_rows)]
    queries = rng.standard_normal((num_queries, 7)).astype(np.float32)
    wanted = rng.random(num_rows) < share
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_BYTES", 7 * 4 * 37)
        patch.setattr(module, "_KEPT", 50)
        best = top_rows(file_of(vectors, tmp_path_factory.mktemp("v")), queries, k, wanted=wanted)
    rows, scores = plainly(vectors, queries, k, wanted)
    assert np.array_equal(best.rows, rows)
    assert np.array_equal(best.scores, scores)
    assert best.num_rows == wanted.sum()
    if wanted.any():
        every = queries.astype(np.float64) @ vectors[wanted].T.astype(np.float64)
        assert np.allclose(best.mean, every.mean(axis=1), atol=1e-6)
        assert np.allclose(best.sd, every.std(axis=1), atol=1e-6)


def test_the_size_of_blocks_changes_no_byte_of_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors = file_of(rng.standard_normal((3000, 33)).astype(np.float32), tmp_path)
    queries = rng.standard_normal((5, 33))
    answers = []
    for rows in (7, 100, 5000):
        monkeypatch.setattr(module, "BLOCK_BYTES", rows * 33 * 4)
        best = top_rows(vectors, queries, 40)
        answers.append((best.rows.tobytes(), best.scores.tobytes()))
    assert len(set(answers)) == 1


def test_memory_stays_under_the_ceiling_also_where_all_vectors_are_equal(tmp_path: Path) -> None:
    vectors = file_of(np.ones((40_000, 16), np.float32), tmp_path)
    queries = np.random.default_rng(0).standard_normal((30, 16))
    tracemalloc.start()
    best = top_rows(vectors, queries, 50)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert best.rows.tolist() == [list(range(50))] * 30
    assert peak < MEMORY_BYTES


def test_no_query_has_no_answer(tmp_path: Path) -> None:
    best = top_rows(file_of(np.ones((3, 2), np.float32), tmp_path), np.zeros((0, 2)), 5)
    assert best.rows.shape == (0, 0)
