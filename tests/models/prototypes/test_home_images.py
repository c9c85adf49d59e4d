"""Where the images lie that a pack was measured on: those like them are near, others far; a broken file is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.models.prototypes.home_images import FILE_NAME, Home, fit_home, load_homes, save_homes


def cloud(seed: int, num: int, middle: float = 0.0) -> NDArray[np.float32]:
    """Unit vectors of 24 dimensions that vary along three of them, about a middle that may lie elsewhere."""
    rng = np.random.default_rng(seed)
    values = 0.05 * rng.normal(size=(num, 24))
    values[:, :3] += 0.6 * rng.normal(size=(num, 3))
    values[:, 3] += 3.0
    values[:, 4] += middle
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def test_one_in_twenty_images_of_the_same_source_lies_beyond_1_and_nearly_all_of_another_do() -> None:
    home = fit_home(cloud(0, 400), cloud(1, 400), "here", axes=4)
    assert (home.distances(cloud(2, 4000)) > 1).mean() == pytest.approx(0.05, abs=0.03)
    assert (home.distances(cloud(3, 400, middle=2.0)) > 1).mean() > 0.95


def test_the_unit_is_that_of_images_that_the_law_was_not_fitted_to() -> None:
    rng = np.random.default_rng(3)
    fitted, held_out = rng.normal(size=(24, 64)), rng.normal(size=(200, 64))
    law = fit_home(fitted, held_out, "home", axes=16)
    assert np.mean(law.distances(held_out) <= 1) == pytest.approx(0.95, abs=0.006)
    assert np.mean(law.distances(fitted) <= 0.95) == 1.0, "few images lie near the law that was fitted to them"


def test_the_distance_is_that_of_the_whole_covariance_where_all_axes_are_kept() -> None:
    fitted, others = cloud(0, 400), cloud(1, 50)
    home = fit_home(fitted, others, "here", axes=24)
    centred = fitted.astype(np.float64) - fitted.mean(axis=0, dtype=np.float64)
    covariance = centred.T @ centred / len(centred)
    drawn = 0.5 * covariance + 0.5 * np.trace(covariance) / 24 * np.eye(24)
    offsets = others - fitted.mean(axis=0, dtype=np.float64)
    expected = np.sqrt(np.einsum("nd,de,ne->n", offsets, np.linalg.inv(drawn), offsets))
    assert home.distances(others) * home.laws[0].limit == pytest.approx(expected, rel=1e-3)


def test_an_image_of_either_source_is_at_home_and_one_between_them_is_not(tmp_path: Path) -> None:
    chests, knees = (
        fit_home(cloud(n, 300, middle), cloud(n + 9, 300, middle), f"set {n}") for n, middle in ((0, -4), (1, 4))
    )
    save_homes(tmp_path, {"xray": Home((*chests.laws, *knees.laws))})
    home = load_homes(tmp_path)["xray"]
    assert (home.source, home.num_fitted, home.num_held_out) == ("set 0 and set 1", 600, 600)
    assert [law.source for law in home.laws] == ["set 0", "set 1"]
    for middle in (-4, 4):
        assert (home.distances(cloud(5, 300, middle)) > 1).mean() < 0.1
    assert (home.distances(cloud(6, 300, 0)) > 1).mean() > 0.95


def test_it_is_read_as_it_was_written_and_a_pack_without_it_knows_nothing(tmp_path: Path) -> None:
    assert load_homes(tmp_path) == {}
    homes = {name: fit_home(cloud(n, 100), cloud(n + 9, 60), f"set {n}") for n, name in enumerate(("mri", "xray"))}
    save_homes(tmp_path, homes)
    read = load_homes(tmp_path)
    assert list(read) == ["mri", "xray"]
    assert (read["xray"].source, read["xray"].num_fitted, read["xray"].num_held_out) == ("set 1", 100, 60)
    assert np.array_equal(read["mri"].distances(cloud(5, 20)), homes["mri"].distances(cloud(5, 20)))


@pytest.mark.parametrize("content", [b"", b"nothing", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_file_that_is_none_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(MedclipError) as refused:
        load_homes(tmp_path)
    assert refused.value.reason is Reason.PACK_INVALID
