from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from medclip.errors import MedclipError, Reason
from medclip.models.prototypes.open_set import Examples, OpenSet, fit_open_set, load_open_set, typical


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def cloud(rng: np.random.Generator, centre: np.ndarray, count: int) -> np.ndarray:
    return unit(centre + 0.1 * rng.normal(size=(count, len(centre))))


@pytest.fixture
def fitted() -> tuple[OpenSet, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a, b = np.eye(12)[:2]
    train = np.concatenate([cloud(rng, a, 200), cloud(rng, b, 200)])
    names = np.array(["ct"] * 200 + ["mri"] * 200)
    held_out = np.concatenate([cloud(rng, a, 100), cloud(rng, b, 100)])
    held_names = np.array(["ct"] * 100 + ["mri"] * 100)
    guard = fit_open_set(Examples(train, names, names), Examples(held_out, held_names, held_names), ["ct", "mri"])
    return guard, cloud(rng, a, 300), cloud(rng, np.eye(12)[5], 300)


def test_new_images_of_a_modality_are_typical_of_it(fitted: tuple[OpenSet, np.ndarray, np.ndarray]) -> None:
    guard, same, _ = fitted
    assert guard.typical(same, "ct").mean() > 0.97


def test_images_unlike_anything_seen_are_not_typical_of_any_modality(
    fitted: tuple[OpenSet, np.ndarray, np.ndarray],
) -> None:
    guard, same, strange = fitted
    assert not guard.typical(strange, "ct").any()
    assert not guard.typical(strange, "mri").any()
    assert not guard.typical(same, "mri").any()


def test_a_modality_without_a_limit_is_never_refused(fitted: tuple[OpenSet, np.ndarray, np.ndarray]) -> None:
    guard, _, strange = fitted
    assert guard.typical(strange, "fundus").all()


def test_the_guard_reads_back_as_it_was_written(fitted: tuple[OpenSet, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    guard, same, strange = fitted
    guard.save(tmp_path)
    again = load_open_set(tmp_path)
    assert again is not None
    assert again.modalities == guard.modalities
    both = np.concatenate([same, strange])
    np.testing.assert_array_equal(again.distance(both, "ct"), guard.distance(both, "ct"))
    np.testing.assert_array_equal(typical(SimpleNamespace(path=tmp_path), both, "ct"), guard.typical(both, "ct"))


def test_a_pack_without_a_guard_refuses_nothing(tmp_path: Path) -> None:
    assert load_open_set(tmp_path) is None
    assert typical(SimpleNamespace(path=tmp_path), np.ones((3, 4), np.float32), "ct").all()


@pytest.fixture
def with_others(fitted: tuple[OpenSet, np.ndarray, np.ndarray]) -> OpenSet:
    """Fit a guard that knows of images close to CT which the pack is not for."""
    rng = np.random.default_rng(1)
    a, b = np.eye(12)[:2]
    beside = unit((a + 0.35 * np.eye(12)[7])[None])[0]
    features = np.concatenate([cloud(rng, a, 200), cloud(rng, b, 200), cloud(rng, beside, 200)])
    kinds = np.array(["ct"] * 200 + ["mri"] * 200 + ["ct of the head"] * 200)
    train = Examples(features, kinds, kinds)
    return fit_open_set(train, Examples(features, kinds, kinds), ["ct", "mri"], lone_margin=1.0)


def test_images_nearer_to_what_the_pack_is_not_for_are_not_typical_however_near_they_are(
    fitted: tuple[OpenSet, np.ndarray, np.ndarray], with_others: OpenSet
) -> None:
    beside = cloud(np.random.default_rng(3), unit((np.eye(12)[0] + 0.35 * np.eye(12)[7])[None])[0], 300)
    assert fitted[0].typical(beside, "ct").mean() > 0.8, "or the others have nothing to tell"
    assert with_others.others == ("ct of the head",)
    assert with_others.typical(beside, "ct").mean() < 0.05
    assert with_others.typical(fitted[1], "ct").mean() > 0.95


def test_images_nearer_to_another_modality_are_not_typical_however_wide_the_limit_is() -> None:
    ct, mri, other = np.eye(12, dtype=np.float32)[:3]
    wide = np.full(2, 100, np.float32)
    guard = OpenSet(("ct", "mri"), np.stack([ct, mri]), np.eye(12, dtype=np.float32), wide, ("page",), other[None])
    nearer_ct, nearer_mri = np.array([0.6 * ct + 0.4 * mri, 0.4 * ct + 0.6 * mri])
    both = np.stack([nearer_ct, nearer_mri])
    assert (guard.distance(both, "ct") < 100).all(), "or the limit refuses them, and not the rival"
    assert guard.typical(both, "ct").tolist() == [True, False]
    assert guard.typical(both, "mri").tolist() == [False, True]


def test_an_image_that_is_hardly_nearer_to_a_modality_than_to_a_rival_is_not_typical_by_the_margin(
    tmp_path: Path,
) -> None:
    ct, page = np.eye(12, dtype=np.float32)[:2]
    wide = np.full(1, 100, np.float32)
    guard = OpenSet(("ct",), ct[None], np.eye(12, dtype=np.float32), wide, ("page",), page[None])
    guard = replace(guard, margins_M=np.array([0.8], np.float32))
    images = np.array([ct + share * (page - ct) for share in (0.45, 0.48, 0.52)])
    ratio = guard.distance(images, "ct") / guard.rival_distance(images, "ct")
    assert ratio[0] < 0.8 < ratio[1] < 1 < ratio[2]
    assert guard.typical(images, "ct").tolist() == [True, False, False]
    guard.save(tmp_path)
    again = load_open_set(tmp_path)
    assert again is not None
    assert again.typical(images, "ct").tolist() == [True, False, False]
    assert replace(guard, margins_M=None).typical(images, "ct").tolist() == [True, True, False]


@pytest.mark.parametrize("margin", [0.0, -1.0, 1.5, float("nan")])
def test_a_file_with_a_margin_that_is_no_share_is_no_guard(tmp_path: Path, margin: float) -> None:
    replace(two_sources()[0], margins_M=np.array([margin], np.float32)).save(tmp_path)
    with pytest.raises(MedclipError) as caught:
        load_open_set(tmp_path)
    assert caught.value.reason is Reason.PACK_INVALID


def test_what_a_guard_knows_of_others_is_kept_in_its_file(with_others: OpenSet, tmp_path: Path) -> None:
    with_others.save(tmp_path)
    again = load_open_set(tmp_path)
    assert again is not None
    assert again.others == with_others.others
    both = cloud(np.random.default_rng(4), np.eye(12)[0] + 0.2 * np.eye(12)[7], 300)
    np.testing.assert_array_equal(again.typical(both, "ct"), with_others.typical(both, "ct"))


def test_a_file_whose_other_means_do_not_fit_is_no_guard(with_others: OpenSet, tmp_path: Path) -> None:
    replace(with_others, others=("one", "two")).save(tmp_path)
    with pytest.raises(MedclipError) as caught:
        load_open_set(tmp_path)
    assert caught.value.reason is Reason.PACK_INVALID


def two_sources() -> tuple[OpenSet, np.ndarray, np.ndarray]:
    """Fit a guard to CT of two sources, one large and one small and far from it, and to pages that lie between."""
    rng = np.random.default_rng(5)
    near, far = np.eye(12)[0], np.eye(12)[3]
    features = np.concatenate([cloud(rng, near, 900), cloud(rng, far, 100), cloud(rng, near + far, 100)])
    kinds = np.array(["ct"] * 1000 + ["page"] * 100)
    sources = np.repeat(["large", "small", "printer"], [900, 100, 100])
    examples = Examples(features, kinds, sources)
    return fit_open_set(examples, examples, ["ct"], slack=1.0), features, sources


def test_every_source_of_a_modality_has_a_mean_of_its_own_and_the_farthest_sets_its_limit() -> None:
    guard, features, sources = two_sources()
    assert guard.means_of == ("ct", "ct")
    for mean, source in zip(guard.means_MD, ("large", "small"), strict=True):
        np.testing.assert_allclose(mean, features[sources == source].mean(axis=0), atol=1e-6)
        assert guard.typical(features[sources == source], "ct").mean() >= 0.98


def test_what_lies_between_two_sources_of_a_modality_is_not_of_it() -> None:
    guard, features, sources = two_sources()
    pages = features[sources == "printer"]
    assert (guard.distance(pages, "ct") > guard.rival_distance(pages, "ct")).mean() > 0.98
    assert guard.typical(pages, "ct").mean() < 0.02


def test_a_guard_with_several_means_of_a_modality_reads_back_as_it_was_written(tmp_path: Path) -> None:
    guard, features, _ = two_sources()
    guard.save(tmp_path)
    again = load_open_set(tmp_path)
    assert again is not None
    assert again.means_of == guard.means_of
    np.testing.assert_array_equal(again.typical(features, "ct"), guard.typical(features, "ct"))


@pytest.mark.parametrize("means_of", [("ct",), ("ct", "ct", "ct"), ("ct", "mri")])
def test_a_file_whose_means_are_of_no_modality_that_it_names_is_no_guard(
    tmp_path: Path, means_of: tuple[str, ...]
) -> None:
    replace(two_sources()[0], means_of=means_of).save(tmp_path)
    with pytest.raises(MedclipError) as caught:
        load_open_set(tmp_path)
    assert caught.value.reason is Reason.PACK_INVALID


def test_a_modality_of_one_source_is_given_as_much_room_as_those_of_several() -> None:
    rng = np.random.default_rng(6)
    a, b = np.eye(12)[:2]
    near, far = cloud(rng, a, 200), cloud(rng, unit((a + 0.5 * np.eye(12)[3])[None])[0], 200)
    features = np.concatenate([near, far, unit(b + 0.03 * rng.normal(size=(200, 12)))])
    kinds, sources = np.repeat(["ct", "fundus"], [400, 200]), np.repeat(["one", "two", "camera"], 200)
    examples = Examples(features, kinds, sources)
    guard = fit_open_set(examples, examples, ["ct", "fundus"])
    distances = guard.distance(features[400:], "fundus")
    assert guard.limits_M[1] >= guard.limits_M[0] > 2 * np.quantile(distances, 0.99)
    assert guard.margin("ct") < guard.margin("fundus") == 1
