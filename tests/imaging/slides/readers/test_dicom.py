from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

from medclip.adapters.base import Source
from medclip.adapters.pathology import PathologyAdapter
from medclip.errors import MedclipError, Reason
from medclip.files.grouping.units import units_of
from medclip.files.recognise.inspect import inspect_file
from medclip.imaging.slides import open_slide
from medclip.sample import FileRef, Kind
from medclip.settings import ReadPolicy, Settings
from tests.kits.dicom_slides import all_of, coarser, halved, part, shows, sparse, without_scale, write_set
from tests.kits.slides import MPP, draw_section, write_dicom_slide

SETTINGS = Settings()


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return draw_section(1500, 1900)


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory, image) -> list[Path]:
    return write_set(tmp_path_factory.mktemp("pyramid"), image)


def units(paths: list[Path]):
    return units_of([(FileRef(path, path.name), inspect_file(path, SETTINGS)) for path in paths])


def test_the_levels_of_a_pyramid_are_the_arrays_they_were_made_of(pyramid, image):
    with open_slide(pyramid[::-1]) as reader:
        assert [(level.height_px, level.width_px) for level in reader.levels] == [(1500, 1900), (375, 475), (93, 118)]
        assert reader.stored_mpp() == pytest.approx((0.5, 2.0, 8.0), rel=0.01)
        np.testing.assert_array_equal(reader.read(0, 0, 1500, 1900, MPP), image)
        np.testing.assert_array_equal(reader.read(0, 0, 375, 475, 2.0), halved(image, 4))
        np.testing.assert_array_equal(reader.read(33.5, 12, 70, 90, MPP), image[67:137, 24:114])


def test_label_and_overview_are_never_shown_unless_asked_for(pyramid):
    with open_slide(pyramid) as reader:
        assert set(reader.associated) == {"label", "overview"}
        assert not (reader.thumbnail(8.0) == 77).all(axis=2).any()
        assert (reader.read_associated("label") == 77).all()
        assert (reader.read_associated("overview") == 88).all()


def test_a_label_alone_is_no_slide(tmp_path):
    small = np.full((120, 100, 3), 77, np.uint8)
    path = write_dicom_slide(tmp_path / "a.dcm", small, photometric="RGB", edit=shows("LABEL"))
    with pytest.raises(MedclipError) as caught:
        open_slide(path)
    assert caught.value.reason is Reason.NOT_AN_IMAGE


def test_tiles_that_a_sparse_slide_leaves_out_are_white(tmp_path, image):
    part_of = image[:512, :640]
    missing = {0, 7, 13}
    path = write_dicom_slide(tmp_path / "a.dcm", part_of, photometric="RGB", edit=sparse(missing))
    expected = part_of.copy()
    for i in missing:
        expected[i // 5 * 128 :, i % 5 * 128 :][:128, :128] = 255
    with open_slide(path) as reader:
        np.testing.assert_array_equal(reader.read(0, 0, 512, 640, MPP), expected)


def test_the_parts_of_a_concatenation_make_one_level(tmp_path, image):
    part_of = image[:512, :640]
    paths = [
        write_dicom_slide(tmp_path / f"{n}.dcm", part_of, photometric="RGB", edit=part(n, frames, 20))
        for n, frames in ((1, range(13)), (2, range(13, 20)))
    ]
    assert [len(unit.files) for unit in units(paths)] == [2]
    for order in (paths, paths[::-1]):
        with open_slide(order) as reader:
            assert len(reader.levels) == 1
            np.testing.assert_array_equal(reader.read(0, 0, 512, 640, MPP), part_of)


@pytest.mark.parametrize("number", [1, 2])
def test_a_missing_part_of_a_concatenation_is_told_and_never_shown_as_empty_slide(tmp_path, image, number):
    frames = {1: range(13), 2: range(13, 20)}[number]
    edit = part(number, frames, 20)
    path = write_dicom_slide(tmp_path / "1.dcm", image[:512, :640], photometric="RGB", edit=edit)
    with pytest.raises(MedclipError) as caught:
        open_slide(path)
    assert caught.value.reason is Reason.MISSING_FILE
    assert "1 of the 2 parts" in str(caught.value)


def test_grey_slides_are_repeated_as_colour(tmp_path, image):
    grey = image[:512, :640, :1]
    path = write_dicom_slide(tmp_path / "a.dcm", grey, photometric="MONOCHROME2")
    with open_slide(path) as reader:
        found = reader.read(0, 0, 512, 640, MPP)
        assert (reader.read(-20, -20, 10, 10, MPP) == 255).all()
        assert any("grey" in note for note in reader.notes)
    np.testing.assert_array_equal(found, np.repeat(grey, 3, axis=2))


def test_a_slide_without_pixel_size_says_so_and_takes_the_users(tmp_path, image):
    path = write_dicom_slide(tmp_path / "a.dcm", image[:512, :640], photometric="RGB", edit=without_scale)
    with pytest.raises(MedclipError) as caught, open_slide(path) as reader:
        reader.read(0, 0, 64, 64, MPP)
    assert caught.value.reason is Reason.NO_SCALE
    with open_slide(path, Settings(policy=ReadPolicy(mpp_um=0.25))) as reader:
        np.testing.assert_array_equal(reader.read(0, 0, 512, 640, 0.25), image[:512, :640])


def test_a_sparse_slide_without_pixel_size_is_read_too(tmp_path, image):
    edit = all_of(sparse({3}), without_scale)
    path = write_dicom_slide(tmp_path / "a.dcm", image[:512, :640], photometric="RGB", edit=edit)
    with open_slide(path, Settings(policy=ReadPolicy(mpp_um=0.25))) as reader:
        assert (reader.read(0, 3 * 128 * 0.25, 128, 128, 0.25) == 255).all()


def test_all_instances_are_one_unit_that_the_adapter_reads(pyramid):
    (unit,) = units(pyramid[::-1])
    assert unit.kind is Kind.SLIDE
    assert [ref.name for ref in unit.files][:3] == ["level01.dcm", "level04.dcm", "level16.dcm"]
    paths = tuple(ref.path for ref in unit.files)
    source = Source(unit.kind, paths, tuple(inspect_file(path, SETTINGS) for path in paths))
    adapter = PathologyAdapter()
    assert adapter.accepts(source)
    sample = adapter.read(source, SETTINGS)
    assert sample.headers["levels"] == [[1900, 1500], [475, 375], [118, 93]]
    assert len(sample.views) > 5
    assert all(not (view.pixels == 77).all() for view in sample.views)
    assert "Planted" not in repr((sample.headers, sample.provenance))


@pytest.mark.parametrize("damage", ["cut", "no header", "pixels"])
def test_one_corrupt_instance_is_one_reason(tmp_path, image, damage):
    paths = write_set(tmp_path, image[:512, :640], (1, 4))
    data = paths[0].read_bytes()
    if damage == "cut":
        paths[0].write_bytes(data[: len(data) // 2])
    elif damage == "no header":
        paths[0].write_bytes(data[:132] + b"\x55" * 3000)
    else:
        paths[0].write_bytes(data[: data.index(b"\xe0\x7f\x10\x00")])
    with pytest.raises(MedclipError) as caught, open_slide(paths) as reader:
        reader.read(0, 0, 512, 640, MPP)
    assert caught.value.reason in (Reason.CORRUPT, Reason.TRUNCATED)
    assert "Planted" not in str(caught.value)


def test_a_coarser_level_never_stands_for_one_that_cannot_be_opened(tmp_path, image):
    def broken(ds):
        del ds.NumberOfFrames, ds.Rows

    write_dicom_slide(tmp_path / "0.dcm", image[:512, :640], photometric="RGB", edit=broken)
    write_dicom_slide(tmp_path / "1.dcm", halved(image[:512, :640], 4), photometric="RGB", edit=coarser(4))
    with pytest.raises(MedclipError) as caught:
        open_slide([tmp_path / "0.dcm", tmp_path / "1.dcm"])
    assert caught.value.reason is Reason.CORRUPT
    assert "1 of the 2 files" in str(caught.value)


def test_a_pyramid_without_pixel_sizes_takes_the_users_for_its_finest_level(tmp_path, image):
    levels = (image, halved(image, 4))
    paths = [
        write_dicom_slide(tmp_path / f"{i}.dcm", level, photometric="RGB", edit=without_scale)
        for i, level in enumerate(levels)
    ]
    with open_slide(paths[::-1], Settings(policy=ReadPolicy(mpp_um=MPP))) as reader:
        np.testing.assert_array_equal(reader.read(0, 0, 375, 475, 2.0), halved(image, 4))
        np.testing.assert_array_equal(reader.read(0, 0, 300, 300, MPP), image[:300, :300])


def test_a_slide_opens_by_whatever_path_leads_to_it(pyramid, tmp_path, monkeypatch):
    link = tmp_path / "linked"
    link.symlink_to(pyramid[0].parent, target_is_directory=True)
    beside = tmp_path / "beside"
    beside.mkdir()
    monkeypatch.chdir(beside)
    for folder in (Path("../linked"), link, pyramid[0].parent / "." / ".." / pyramid[0].parent.name):
        with open_slide([folder / path.name for path in pyramid]) as reader:
            assert len(reader.levels) == 3
            monkeypatch.chdir(tmp_path)  # a reader goes on where the program has moved
            assert reader.read(0, 0, 8, 8, MPP).shape == (8, 8, 3)
            monkeypatch.chdir(beside)


def test_a_slide_that_does_not_state_what_its_images_are_is_refused_in_words(tmp_path):
    def edit(ds):
        del ds.ImageType

    path = write_dicom_slide(tmp_path / "a.dcm", draw_section(300, 300), photometric="RGB", edit=edit)
    with pytest.raises(MedclipError, match=r"ImageType.*TotalPixelMatrix.*VOLUME") as caught:
        open_slide(path)
    assert caught.value.reason is Reason.CORRUPT


@pytest.mark.parametrize("heights_um", [None, (0, 4, 8), (-4, 0, 4), (12, 16, 20)])
def test_of_a_stack_the_middle_plane_is_read_wherever_planes_are_counted_from(tmp_path, heights_um):
    middle, outer = np.full((128, 128, 3), 90, np.uint8), np.full((128, 128, 3), 10, np.uint8)

    def three_planes(ds):
        if heights_um is not None:
            sparse(set())(ds)
            (first,) = ds.PerFrameFunctionalGroupsSequence
            groups = [copy.deepcopy(first) for _ in heights_um]
            for group, height in zip(groups, heights_um, strict=True):
                group.PlanePositionSlideSequence[0].ZOffsetInSlideCoordinateSystem = height
            ds.PerFrameFunctionalGroupsSequence = groups
        ds.TotalPixelMatrixFocalPlanes, ds.NumberOfFrames = 3, 3
        ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = 0.004
        ds.PixelData = outer.tobytes() + middle.tobytes() + outer.tobytes()
        ds["PixelData"].VR = "OB"

    path = write_dicom_slide(tmp_path / "a.dcm", middle, photometric="RGB", edit=three_planes)
    with open_slide(path) as reader:
        assert (reader.read(0, 0, 128, 128, MPP) == 90).all()
        assert reader.notes == ("the middle one of 3 focal planes is read",)
