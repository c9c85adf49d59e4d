"""Step `image`: the golden centroids, masks and order of keys, and a pool around a target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from medclip.errors import MedclipError, Reason
from medclip.pairs.pile import Pile
from medclip.pairs.selection import image as step
from medclip.pairs.selection.image import ImageSettings, compute_centroids, has_words, image, nearest_centroids
from medclip.pairs.selection.pack_vectors import PackVectors
from medclip.pairs.selection.steps import Verdict
from tests.kits.image_piles import context_of, pile_of


@pytest.mark.golden
def test_centroids_masks_and_order_are_those_of_the_published_code(golden: Path) -> None:
    stored = np.load(golden / "datacomp_filters.npz")
    of_pool = nearest_centroids(stored["pool_feats"], stored["centroids"], reference=True)
    of_target = np.unique(nearest_centroids(stored["target_feats"], stored["centroids"], reference=True))
    assert of_pool.tolist() == stored["pool_centroid_ids"].tolist()
    assert of_target.tolist() == stored["target_centroid_ids"].tolist()
    assert np.isin(of_pool, of_target).tolist() == stored["image_based_keep"].tolist()
    mask = [has_words(text) for text in stored["captions"].tolist()]
    assert mask == stored["image_baseline_caption_mask_all_english"].tolist()


@pytest.mark.golden
def test_keys_in_the_order_of_text_are_the_published_pairs_of_numbers(golden: Path) -> None:
    stored = np.load(golden / "datacomp_filters.npz")
    pairs = list(zip(stored["sorted_uid_hi"].tolist(), stored["sorted_uid_lo"].tolist(), strict=True))
    uids = {f"{high:016x}{low:016x}" for high, low in pairs}
    assert uids <= {uid.lower() for uid in stored["uid"].tolist()}
    assert [(int(uid[:16], 16), int(uid[16:], 16)) for uid in sorted(uids)] == pairs


def run(monkeypatch: pytest.MonkeyPatch, pool: Any, target: Any, pile: Pile, **settings: Any) -> Verdict:
    """Run the step with a pack of these vectors."""
    held = pile_of(text=[""] * len(target))

    class Pack:
        name = "made up"

    def encode(_model: Any, of: Pile, rows: Any, _context: Any) -> PackVectors:
        vectors = np.asarray(target if of is held else pool, np.float32)[rows]
        return PackVectors(vectors, np.where(np.isnan(vectors[:, 0]), "corrupt", "").astype(object))

    monkeypatch.setattr(step, "load_pack", lambda *_: Pack)
    monkeypatch.setattr(step, "pack_facts", lambda pack: {"name": pack.name})
    monkeypatch.setattr(step, "encode_pile", encode)
    splits: list[str] = []
    monkeypatch.setattr(
        "medclip.pairs.selection.image.read_pile", lambda place, *, split, **_: splits.append(split) or held
    )
    verdict = image(pile, np.arange(len(pile)), ImageSettings(target="shards", **settings), context_of(), 0)
    assert splits == [settings.get("target_split", "train")]
    return verdict


def test_only_what_lies_beside_the_target_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    pool = np.concatenate([rng.normal(at, 0.05, (30, 2)) for at in ((1, 0), (0, 1), (-1, 0))])
    pool[5] = np.nan
    pile = pile_of(text=["two words"] * 90)
    verdict = run(monkeypatch, pool, [[0.0, 1.1], [0.1, 0.9], [np.nan, np.nan]], pile, clusters=3)
    assert np.flatnonzero(verdict.kept_M).tolist() == list(range(30, 60))
    assert verdict.value_M is not None
    assert np.isnan(verdict.value_M[5])
    assert set(verdict.value_M[30:60]) == {2}
    assert verdict.facts["clusters_of_target"] == 1
    again = run(monkeypatch, pool, [[0.0, 1.1]], pile, clusters=3)
    assert (again.kept_M == verdict.kept_M).all()


def test_the_reference_compares_products_and_asks_for_words_first(monkeypatch: pytest.MonkeyPatch) -> None:
    centroids = np.array([[1, 0], [3, 0]], np.float32)
    vectors = np.array([[1.1, 0], [-1, 0]], np.float32)
    assert nearest_centroids(vectors, centroids).tolist() == [0, 0]
    assert nearest_centroids(vectors, centroids, reference=True).tolist() == [1, 0]
    pile = pile_of(text=["two words", "word", "a b c", ""])
    verdict = run(monkeypatch, [[1.0, 0]] * 4, [[1.0, 0]], pile, reference=True)
    assert verdict.kept_M.tolist() == [True, False, False, False]


def test_centroids_are_no_more_than_different_vectors_and_depend_on_the_seed_alone() -> None:
    vectors = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    assert len(compute_centroids(vectors, 10, 0)) == 3
    drawn = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    assert (compute_centroids(drawn, 7, 1) == compute_centroids(drawn, 7, 1)).all()


@pytest.mark.parametrize("split", ["test", "Testing", "test_external"])
def test_a_test_split_is_refused(split: str) -> None:
    with pytest.raises(ValidationError, match="never chosen by the images of a test split"):
        ImageSettings(target="shards", target_split=split)


def test_a_target_without_a_readable_image_is_refused_and_an_empty_pool_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MedclipError) as refused:
        run(monkeypatch, [[1.0, 0]], [[np.nan, 0]], pile_of(text=["x"]))
    assert refused.value.reason is Reason.NOTHING_TO_DO
    assert run(monkeypatch, [[np.nan, 0]], [[1.0, 0]], pile_of(text=["x"])).kept_M.tolist() == [False]


def test_a_caution_says_that_a_target_in_every_cluster_drops_nothing_and_how_many_clusters_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pile = pile_of(text=["a film"] * 3)
    alone = run(monkeypatch, [[1.0, 0], [0, 1.0], [1.0, 0]], [[1.0, 0]], pile)
    assert alone.kept_M.all()
    assert any("the target lies in every cluster, so nothing is dropped" in note for note in alone.notes)
    two = run(monkeypatch, [[1.0, 0], [0, 1.0], [1.0, 0]], [[1.0, 0]], pile, clusters=5)
    assert two.kept_M.tolist() == [True, False, True]
    assert two.notes == ("2 clusters in the place of 5: there are no more different images.",)
