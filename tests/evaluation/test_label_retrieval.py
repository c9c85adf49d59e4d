from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import MedclipError
from medclip.evaluation import label_retrieval as module
from medclip.evaluation.label_retrieval import label_retrieval, ranks_of_right, retrieval


@pytest.mark.golden
def test_recall_and_ranks_equal_the_golden_ones(golden: Path) -> None:
    held = np.load(golden / "zero_shot_retrieval.npz", allow_pickle=False)
    images, texts, index = held["ret_image"], held["ret_text"], held["ret_text_image_index"]
    ks = tuple(int(name.rpartition("R")[2]) for name in held.files if name.startswith("image_retrieval_R"))
    by_text, by_image = retrieval(images, texts, range(len(images)), index.tolist(), ks=ks)
    for k in ks:
        assert by_text.recall[k] == pytest.approx(float(held[f"image_retrieval_R{k}"]), abs=1e-6)
        assert by_image.recall[k] == pytest.approx(float(held[f"text_retrieval_R{k}"]), abs=1e-6)
    assert by_text.median_rank == pytest.approx(float(held["t2i_median_rank"]))
    assert by_text.mean_rank == pytest.approx(float(held["t2i_mean_rank"]))
    assert by_text.mrr == pytest.approx(float(held["t2i_mrr"]))


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 6), st.integers(0, 10**6))
def test_recall_never_falls_with_k_and_is_one_where_everything_is_looked_at(
    num_images: int, num_texts: int, num_keys: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    image_keys, text_keys = rng.integers(0, num_keys, num_images), rng.integers(0, num_keys, num_texts)
    if not np.isin(text_keys, image_keys).any():
        return
    everything = max(num_images, num_texts)
    for found in retrieval(
        rng.normal(size=(num_images, 4)),
        rng.normal(size=(num_texts, 4)),
        image_keys,
        text_keys,
        ks=(1, 2, 5, everything),
    ):
        values = list(found.recall.values())
        assert values == sorted(values)
        assert found.recall[everything] == 1.0
        assert 1 <= found.mrr**-1 <= found.mean_rank + 1e-9


def test_several_right_answers_count_as_found_when_one_is() -> None:
    images = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    texts = np.array([[0.0, 1.0]])
    by_text, by_image = retrieval(images, texts, ["a", "b", "a"], ["a"], ks=(1, 2))
    assert by_text.recall == {1: 0.0, 2: 1.0}
    assert by_image.num_without_answer == 1
    same_words, _ = retrieval(images, texts, ["a", "a", "a"], ["a"], ks=(1,))
    assert same_words.recall[1] == 1.0


def test_other_images_of_the_same_patient_are_not_in_the_way() -> None:
    images = np.array([[1.0, 0.0], [0.6, 0.8]])
    texts = np.array([[1.0, 0.0], [1.0, 0.0]])
    plain, _ = retrieval(images, texts, [0, 1], [0, 1], ks=(1,))
    assert plain.recall[1] == 0.5
    whose = {"image_patients": ["p", "p"], "text_patients": ["p", "p"]}
    apart, _ = retrieval(images, texts, [0, 1], [0, 1], ks=(1,), **whose)
    assert apart.recall[1] == 1.0


def test_ranks_by_query_are_what_recall_counts() -> None:
    rng = np.random.default_rng(3)
    images, texts = rng.normal(size=(12, 4)), rng.normal(size=(9, 4))
    image_keys, text_keys = [i // 2 for i in range(12)], [0, 1, 2, 3, 4, 5, 5, 7, 7]
    measured = retrieval(images, texts, image_keys, text_keys, ks=(1, 3))
    ranks = ranks_of_right(images, texts, image_keys, text_keys)
    for figures, of_queries in zip(measured, ranks, strict=True):
        assert figures.num_without_answer == (of_queries == 0).sum()
        for k in (1, 3):
            assert figures.recall[k] == pytest.approx((of_queries[of_queries > 0] <= k).mean())
    assert ranks[0][7:].tolist() == [0, 0], "no image has the key of the last two texts"


def test_the_size_of_the_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    arguments = rng.normal(size=(23, 5)), rng.normal(size=(31, 5)), range(23), rng.integers(0, 23, 31).tolist()
    whole = retrieval(*arguments)
    monkeypatch.setattr(module, "_BLOCK", 4)
    assert retrieval(*arguments) == whole


def test_rows_without_keys_and_pairs_that_never_meet_are_refused() -> None:
    with pytest.raises(MedclipError, match="every row needs its key"):
        retrieval(np.eye(2), np.eye(2), [0], [0, 1])
    with pytest.raises(MedclipError, match="patients are given for both sides"):
        retrieval(np.eye(2), np.eye(2), [0, 1], [0, 1], image_patients=["a", "b"])
    with pytest.raises(MedclipError, match="nothing to retrieve"):
        retrieval(np.eye(2), np.eye(2), [0, 1], [2, 3])


@given(st.integers(2, 40), st.integers(1, 4), st.integers(2, 12), st.integers(0, 10**6))
def test_precision_and_overlap_of_labels_are_those_of_a_plain_loop(
    num_images: int, num_labels: int, num_patients: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(num_images, 4))
    labels = rng.random((num_images, num_labels)) < 0.4
    patients = rng.integers(0, num_patients, num_images).tolist()
    precision, overlaps, chance = [], [], []
    for n in range(num_images):
        others = [m for m in range(num_images) if patients[m] != patients[n]]
        if not others:
            continue
        nearest = sorted(others, key=lambda m: -(images[m] @ images[n]))[:3]
        alike = [bool((labels[m] == labels[n]).all()) for m in others]
        precision.append(np.mean([alike[others.index(m)] for m in nearest]))
        sets = [(set(np.flatnonzero(labels[m])), set(np.flatnonzero(labels[n]))) for m in nearest]
        overlaps.append(np.mean([len(a & b) / len(a | b) if a | b else 1.0 for a, b in sets]))
        chance.append(np.mean(alike))
    if not chance:
        with pytest.raises(MedclipError, match="of one patient"):
            label_retrieval(images, labels, patients=patients)
        return
    figures = label_retrieval(images, labels, patients=patients, ks=(3,))
    assert figures.precision[3] == pytest.approx(np.mean(precision))
    assert figures.jaccard[3] == pytest.approx(np.mean(overlaps))
    assert figures.chance == pytest.approx(np.mean(chance))
    assert figures.num_queries + figures.num_without_others == num_images


def test_images_of_the_patient_who_asks_are_not_found_among_the_nearest() -> None:
    images = np.array([[1.0, 0.0], [0.99, 0.1], [0.0, 1.0]])
    labels = np.array([[1], [1], [0]])
    assert label_retrieval(images, labels, ks=(1,)).precision[1] == pytest.approx(2 / 3)
    assert label_retrieval(images, labels, patients=["a", "a", "b"], ks=(1,)).precision[1] == 0
    with pytest.raises(MedclipError, match="every image needs its own row"):
        label_retrieval(images, labels[:2])
