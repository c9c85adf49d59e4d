"""Files of a slide's map: which of a folder's files are the slide, at which scale, and what of it can be read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image

from medclip.settings import Settings
from medclip.slides.heat_maps import MapFiles, write_maps
from medclip.slides.parametric_map import PatchMap, patch_map
from medclip.slides.slide_features import SlideFeatures
from medclip.slides.slide_store import SlideRow
from tests.kits.slide_store import make_slide_features
from tests.kits.slides import MPP, damage_tile, draw_section, write_dicom_slide, write_pyramid

KEY = "0123456789abcdef"
SIZE_PX = (512, 640)


def mapped(size_px: tuple[int, int] = SIZE_PX) -> tuple[PatchMap, SlideFeatures]:
    """A map of a slide of a size, and its vectors."""
    size_um = (size_px[0] * MPP, size_px[1] * MPP)
    features = make_slide_features(KEY, num=4, slide_size_um=size_um, slide_mpp_um=(MPP, MPP))
    return patch_map(features, np.arange(4.0), "evidence for one against another"), features


def done(file: str, **facts) -> SlideRow:
    """Return the row of a slide that was embedded."""
    return replace(SlideRow(KEY, file, 1, "done", mpp_um=MPP, mpp_source="file"), **facts)


def test_the_files_of_a_dicom_slide_are_those_of_its_series_whatever_else_lies_beside_them(tmp_path: Path):
    images = tmp_path / "in"
    images.mkdir()

    def label(ds):
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]
        ds.TotalPixelMatrixOriginSequence[0].XOffsetInSlideCoordinateSystem = 70

    def other(ds):
        ds.SeriesInstanceUID = f"{ds.SeriesInstanceUID[:40]}.9"
        ds.TotalPixelMatrixOriginSequence[0].XOffsetInSlideCoordinateSystem = 50

    section = draw_section(*SIZE_PX)
    write_dicom_slide(images / "a_label.dcm", section[:128, :128], photometric="RGB", edit=label)
    write_dicom_slide(images / "b_slide.dcm", section, photometric="RGB")
    write_dicom_slide(images / "c_other.dcm", np.full((900, 800, 3), 200, np.uint8), photometric="RGB", edit=other)
    one, features = mapped()
    files = MapFiles(images, True, "tiny 1", Settings())
    assert write_maps(tmp_path / "maps", one, done("a_label.dcm", num_files=2), features, files) == ""
    data = pydicom.dcmread(tmp_path / "maps" / f"{KEY}.dcm")
    slide = pydicom.dcmread(images / "b_slide.dcm")
    assert data.SourceImageSequence[0].ReferencedSOPInstanceUID == slide.SOPInstanceUID
    assert abs(float(data.TotalPixelMatrixOriginSequence[0].XOffsetInSlideCoordinateSystem)) < 1


def test_a_header_that_does_not_say_where_the_slide_lies_costs_the_dicom_map_alone(tmp_path: Path):
    def without_origin(ds):
        del ds.TotalPixelMatrixOriginSequence

    write_dicom_slide(tmp_path / "a.dcm", draw_section(*SIZE_PX), photometric="RGB", edit=without_origin)
    one, features = mapped()
    note = write_maps(tmp_path / "maps", one, done("a.dcm"), features, MapFiles(tmp_path, True, "", Settings()))
    assert note == "There is no DICOM map: the slide's header does not say where the slide lies."
    assert sorted(path.suffix for path in (tmp_path / "maps").iterdir()) == [".geojson", ".png"]


def test_a_slide_without_a_scale_is_drawn_at_the_one_that_it_was_embedded_at(tmp_path: Path):
    write_pyramid(tmp_path / "a.tiff", draw_section(*SIZE_PX), mpp=None)
    one, features = mapped()
    files = MapFiles(tmp_path, False, "tiny 1", Settings())
    assert "no_scale" in write_maps(tmp_path / "maps", one, done("a.tiff"), features, files)
    assert write_maps(tmp_path / "maps", one, done("a.tiff", mpp_source="table"), features, files) == ""


def test_a_damaged_tile_leaves_a_white_part_in_the_picture_and_the_rest_of_the_slide(tmp_path: Path):
    size = (512, 768)
    path = write_pyramid(tmp_path / "a.tiff", np.full((*size, 3), 120, np.uint8), steps=(1,))
    damage_tile(path, 0)
    one, features = mapped(size)
    note = write_maps(tmp_path / "maps", one, done("a.tiff"), features, MapFiles(tmp_path, False, "", Settings()))
    assert note.startswith("Damaged parts of the slide, which are drawn white:")
    damaged = np.asarray(Image.open(tmp_path / "maps" / f"{KEY}.png").convert("L"))
    blank = MapFiles(None, False, "", Settings())
    write_maps(tmp_path / "maps", one, replace(done("a.tiff"), key="f" * 16), features, blank)
    shown = np.asarray(Image.open(tmp_path / "maps" / f"{'f' * 16}.png").convert("L"))
    left = slice(0, damaged.shape[1] // 2)
    assert (damaged[:, left] == 120).sum() > 4 * (shown[:, left] == 120).sum() + 10_000
