"""A slide's vectors in one HDF5 file: what comes back, what others read of it, equal values as equal bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from medclip.errors import MedclipError, Reason
from medclip.slides import slide_features
from medclip.slides.slide_features import read_slide_features, write_slide_features
from tests.kits.slide_store import make_slide_features


def test_what_is_read_is_what_was_written(tmp_path: Path):
    features = make_slide_features(
        num_lost=2, effective_mpp_um=(0.5, 0.502), quality={"sharpness": np.arange(9, dtype=np.float32)}
    )
    write_slide_features(tmp_path / "a.h5", features)
    read = read_slide_features(tmp_path / "a.h5")
    for name in ("key", "size_px", "mpp_um", "effective_mpp_um", "slide_size_um", "slide_mpp_um", "pack", "grid"):
        assert getattr(read, name) == getattr(features, name), name
    assert read.num_lost == 2
    for name in ("features_ND", "corners_um_N2", "coverage_N", "coords_N2"):
        a, b = getattr(read, name), getattr(features, name)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert list(read.quality) == ["sharpness"]
    np.testing.assert_array_equal(read.quality["sharpness"], np.arange(9))


@pytest.mark.parametrize("num", [0, 1, 700])
def test_equal_values_are_equal_bytes_however_they_lie_in_memory(tmp_path: Path, num: int):
    features = make_slide_features(num=num, dim=1000)
    write_slide_features(tmp_path / "a.h5", features)
    if num:
        np.save(tmp_path / "mapped.npy", features.features_ND)
        mapped = np.load(tmp_path / "mapped.npy", mmap_mode="r")
        features = replace(features, features_ND=mapped)
    write_slide_features(tmp_path / "b.h5", features)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert len(read_slide_features(tmp_path / "b.h5")) == num


def test_half_precision_stays_half(tmp_path: Path):
    features = make_slide_features()
    half = replace(features, features_ND=features.features_ND.astype(np.float16))
    write_slide_features(tmp_path / "a.h5", half)
    assert read_slide_features(tmp_path / "a.h5").features_ND.dtype == np.float16


def test_coords_are_x_and_y_in_pixels_of_the_finest_resolution_with_the_attributes_that_others_ask_for(tmp_path: Path):
    write_slide_features(tmp_path / "a.h5", make_slide_features())
    with h5py.File(tmp_path / "a.h5") as file:
        coords = file["coords"]
        assert coords.dtype == np.int64
        assert coords[1].tolist() == [512, 0]  # 128 µm to the right at 0.25 µm/px
        assert coords[3].tolist() == [0, 512]
        attributes = dict(coords.attrs)
    assert attributes["patch_size"] == 256
    assert attributes["patch_size_level0"] == 512
    assert (attributes["level0_magnification"], attributes["target_magnification"]) == (40, 20)
    assert (attributes["level0_width"], attributes["level0_height"]) == (8000, 4000)


def test_arrays_of_different_length_are_refused():
    with pytest.raises(MedclipError) as caught:
        make_slide_features(coverage_N=np.ones(4, np.float32))
    assert caught.value.reason is Reason.WRONG_USE


@pytest.mark.parametrize("damage", ["text", "cut", "other"])
def test_a_file_that_is_none_or_is_damaged_has_its_reason(tmp_path: Path, damage: str):
    path = tmp_path / "a.h5"
    write_slide_features(path, make_slide_features(num=300, dim=200))
    if damage == "text":
        path.write_text("no vectors")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
    else:
        with h5py.File(path, "w") as file:
            file["features"] = np.zeros((2, 2))
    with pytest.raises(MedclipError) as caught:
        read_slide_features(path)
    assert caught.value.reason is Reason.CORRUPT
    assert caught.value.where == str(path)


def _link_to_a_file(file: h5py.File, secret: Path) -> None:
    file["quality/blur"] = h5py.ExternalLink(secret, "secret")


def _soft_link(file: h5py.File, secret: Path) -> None:
    file["quality/blur"] = h5py.SoftLink("/coverage")


def _bytes_of_a_file(file: h5py.File, secret: Path) -> None:
    file.create_dataset("quality/blur", (9,), np.float32, external=[(str(secret), 0, 36)])


def _rows_of_a_file(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((9,), np.float32)
    layout[:] = h5py.VirtualSource(secret, "secret", shape=(9,))
    file.create_virtual_dataset("quality/blur", layout)


def _unpacks_to_much(file: h5py.File, secret: Path) -> None:
    file.create_dataset("quality/blur", (2**32,), np.float32, chunks=(2**20,), compression="gzip")


def _circle(file: h5py.File, secret: Path) -> None:
    file["quality/again"] = file["quality"]


@pytest.mark.parametrize(
    "trick", [_link_to_a_file, _soft_link, _bytes_of_a_file, _rows_of_a_file, _unpacks_to_much, _circle]
)
def test_a_file_that_points_elsewhere_or_states_more_than_it_holds_is_refused(tmp_path: Path, trick: Any):
    """HDF5 can show the bytes of any file that the reader may read as if they were its own."""
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["secret"] = np.arange(9, dtype=np.float32)
    path = tmp_path / "a.h5"
    write_slide_features(path, make_slide_features(num=9, quality={"light": np.zeros(9, np.float32)}))
    assert len(read_slide_features(path)) == 9
    with h5py.File(path, "a") as file:
        trick(file, secret)
    with pytest.raises(MedclipError) as caught:
        read_slide_features(path)
    assert caught.value.reason is Reason.CORRUPT


def test_another_format_and_a_missing_file_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(MedclipError) as caught:
        read_slide_features(tmp_path / "a.h5")
    assert caught.value.reason is Reason.MISSING_FILE
    monkeypatch.setattr(slide_features, "FORMAT", 7)
    write_slide_features(tmp_path / "a.h5", make_slide_features())
    monkeypatch.undo()
    with pytest.raises(MedclipError) as caught:
        read_slide_features(tmp_path / "a.h5")
    assert caught.value.reason is Reason.OUTPUT_IN_USE
