"""Images as a caller holds them become one list of inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas
import polars
import pyarrow
import pytest

from medclip.adapters.base import RASTERS
from medclip.errors import MedclipError, Reason
from medclip.files.given_images import as_files, given_images, is_several, write_array
from medclip.files.recognise.sniff import sniff
from medclip.imaging.raster import read_raster
from medclip.sample import Modality, View
from medclip.settings import Settings
from tests.kits.files import ramp, write_image


def test_paths_and_arrays_are_listed_in_their_order_by_name() -> None:
    view = View(ramp()[:, :, None], (0, 255))
    inputs = given_images(["scans/a.png", Path("b.dcm"), ramp(), view])
    assert [given.name for given in inputs] == ["scans/a.png", "b.dcm", "image 2", "image 3"]
    assert inputs[1].image == Path("b.dcm")
    assert inputs[3].image is view


@pytest.mark.parametrize(
    "image", ["a.png", Path("a.png"), ramp(), np.zeros((20, 30, 3)), np.zeros((20, 30, 1), np.int16)]
)
def test_one_image_is_one_input(image: object) -> None:
    assert len(given_images(image)) == 1


def test_an_array_of_four_axes_is_several_images() -> None:
    assert [given.image.shape for given in given_images(np.zeros((3, 20, 30, 3)))] == [(20, 30, 3)] * 3  # type: ignore[union-attr]


@pytest.mark.parametrize("frame", [pandas.DataFrame, polars.DataFrame, polars.LazyFrame, pyarrow.table])
def test_a_data_frame_of_any_library_names_files_and_their_modality(frame) -> None:
    inputs = given_images(frame({"file": ["a.png", "b.png"], "modality": ["CXR", ""], "patient": ["1", "2"]}))
    assert [(given.name, given.modality) for given in inputs] == [("a.png", Modality.XRAY), ("b.png", None)]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (np.zeros((3, 64, 64)), "H x W or H x W x 3; this is float64 [3, 64, 64]"),
        ([ramp(), np.zeros((4, 4, 4, 3))], "image 1: an image is an array"),
        (np.zeros((20, 20), complex), "complex128"),
        (np.zeros((0, 20)), "[0, 20]"),
        ([ramp(), 5], "image 1: images are given as paths"),
        (None, "type NoneType"),
        (5, "type int"),
    ],
)
def test_anything_else_is_refused_by_name(wrong: object, sentence: str) -> None:
    with pytest.raises(MedclipError) as caught:
        given_images(wrong)
    assert caught.value.reason is Reason.WRONG_USE
    assert sentence in str(caught.value)


def test_only_a_path_is_not_several() -> None:
    assert [is_several(given) for given in ("a.png", Path("a"), ["a.png"], ramp())] == [False, False, True, True]


@pytest.mark.parametrize(
    "array",
    [
        ramp(),
        ramp(dtype=np.uint16, top=4095),
        ramp(dtype=np.int32, top=4095),
        ramp()[:, :, None],
        np.stack([ramp(), ramp()[::-1], ramp()[:, ::-1]], axis=-1),
        ramp(dtype=np.float32, top=1) - np.float32(0.25),
        np.stack([ramp(dtype=np.float32, top=1)] * 3, axis=-1) / 7,
        np.asfortranarray(ramp()),
        ramp(dtype=np.dtype(">u2"), top=4095),
        ramp() > 100,
    ],
)
def test_an_array_reads_back_from_its_file_with_the_same_values(array: np.ndarray, tmp_path: Path) -> None:
    path = write_array(array, tmp_path / "a.tif")
    assert sniff(path) in RASTERS
    pixels = read_raster(path, sniff(path), Settings()).pixels
    expected = array.astype(np.uint8) * 255 if array.dtype == bool else array
    np.testing.assert_array_equal(pixels, expected if array.ndim == 3 else expected[:, :, None])
    assert path.read_bytes() == write_array(array.copy(), tmp_path / "b.tif").read_bytes()


def test_inputs_become_files_in_the_order_of_folders_and_names(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/1.png", "a.png"):
        write_image(tmp_path / name, ramp())
    arrays = tmp_path / "arrays"
    arrays.mkdir()
    given = given_images([tmp_path / "b", ramp(), tmp_path / "a.png", tmp_path / "gone.png"])
    refs = as_files(given, arrays)
    names = [str(tmp_path / name) for name in ("a.png", "gone.png", "b/1.png", "b/2.png")]
    assert [ref.name for ref in refs] == ["image 1", *names]
    assert [ref.place for ref in refs] == sorted(ref.place for ref in refs)
    assert [ref.problem and ref.problem.reason for ref in refs] == [None, None, Reason.MISSING_FILE, None, None]
    assert all(ref.stamp.size_bytes for ref in refs if ref.problem is None)
    assert refs[0].path.parent == arrays


def test_links_out_of_a_given_folder_are_followed_where_that_is_wished(tmp_path: Path) -> None:
    write_image(tmp_path / "elsewhere" / "film.png", ramp())
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "link.png").symlink_to(tmp_path / "elsewhere" / "film.png")
    given = given_images([tmp_path / "given"])
    (kept,), (followed,) = as_files(given, tmp_path), as_files(given, tmp_path, follow_links=True)
    assert kept.problem is not None
    assert kept.problem.reason is Reason.LINK_OUTSIDE
    assert followed.problem is None


def test_names_are_padded_so_that_their_order_is_that_of_the_images() -> None:
    names = [given.name for given in given_images([ramp()] * 11)]
    assert names == sorted(names)
    assert names[:2] == ["image 00", "image 01"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["x/a.png", "x/./a.png"], r"x/a\.png: this file is given twice"),
        ([View(ramp()[:, :, None], (0, 255))], "image 0: a view, sample or study was read already"),
    ],
)
def test_what_is_no_file_or_two_times_the_same_is_refused(given: list, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match=sentence):
        as_files(given_images(given), tmp_path)
