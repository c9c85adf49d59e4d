"""Maps of slides: the raster, the picture, QuPath's GeoJSON and the DICOM parametric map say the same of each patch."""

import io
import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from medclip.errors import MedclipError
from medclip.imaging.slides.outlines import from_geojson
from medclip.imaging.slides.readers.open import open_slide
from medclip.slides.heat_maps import blank_slide, draw_map, map_geojson, paint
from medclip.slides.parametric_map import (
    PADDING,
    PatchMap,
    blank_header,
    evidence_for,
    parametric_map,
    patch_map,
    rasterise,
    slide_header,
    write_parametric_map,
)
from tests.kits.slide_store import make_slide_features
from tests.kits.slides import MPP, draw_section, write_dicom_slide, write_pyramid

KEY = "0123456789abcdef"
TITLE = "evidence for tumour against normal"


def peaked(at: int = 4) -> PatchMap:
    """Nine patches of 128 µm, three in a row; one speaks for the answer and one against it."""
    values = np.full(9, 0.1, np.float32)
    values[at], values[8] = 2.0, -1.0
    return patch_map(make_slide_features(KEY), values, TITLE)


def test_the_raster_has_each_value_at_its_place_and_nothing_elsewhere():
    one = peaked()
    keep = np.arange(9) != 5
    some = PatchMap(TITLE, one.values_N[keep], one.corners_um_N2[keep] + 64.0, one.patch_um, one.slide_um)
    raster = rasterise(some)
    assert raster.values_RC.shape == (3, 3)
    assert raster.values_RC[1, 1] == 2.0
    assert np.argwhere(np.isnan(raster.values_RC)).tolist() == [[1, 2]]
    assert (raster.cell_um, raster.origin_um) == ((128.0, 128.0), (64.0, 64.0))


def test_patches_of_two_pieces_that_share_no_grid_fill_the_cells_below_them():
    corners = np.array([[10.0, 7.5], [10.0, 135.5], [94.5, 600.5]])
    raster = rasterise(PatchMap(TITLE, np.array([1, 2, 3], np.float32), corners, (128.0, 128.0), (1000.0, 2000.0)))
    assert (raster.cell_um, raster.origin_um) == ((16.0, 16.0), (10.0, 7.5))
    assert raster.values_RC.shape == (13, 45)  # 84.5 and 593 µm further, to the nearest cell
    filled = {value: np.argwhere(raster.values_RC == value) for value in (1, 2, 3)}
    assert {value: len(cells) for value, cells in filled.items()} == {1: 64, 2: 64, 3: 64}
    for value, corner in zip((1, 2, 3), corners, strict=True):
        first = filled[value].min(axis=0) * 16 + corners.min(axis=0)
        assert np.abs(first - corner).max() <= 8


def test_where_no_row_beside_has_tissue_a_cell_is_no_larger_than_a_patch():
    corners = np.array([[0.0, 0.0], [256.0, 640.0]])
    raster = rasterise(PatchMap(TITLE, np.array([1, 2], np.float32), corners, (128.0, 128.0), (1000.0, 1000.0)))
    assert raster.cell_um == (128.0, 128.0)
    assert raster.values_RC.shape == (3, 6)
    assert (raster.values_RC[0, 0], raster.values_RC[2, 5]) == (1, 2)


def test_what_speaks_for_an_answer_is_measured_against_the_mean_of_the_others():
    logits = np.array([[3.0, 1.0, 2.0], [0.0, 4.0, 2.0]])
    assert evidence_for(logits, 1).tolist() == [-1.5, 3.0]
    assert evidence_for(logits[:, :1], 0).tolist() == [3.0, 0.0]


def test_the_picture_is_strongest_on_the_peak_and_pale_where_no_patch_was_read():
    one = peaked()
    image = blank_slide(one, 400)
    painted = paint(one, image).astype(float)
    scale = image.shape[1] / one.slide_um[1]

    def colour(top_um: float, left_um: float) -> np.ndarray:
        return painted[round(top_um * scale), round(left_um * scale)]

    peak, other, outside = colour(192, 192), colour(64, 64), colour(192, 900)
    assert np.ptp(peak) > 3 * np.ptp(other)
    assert np.ptp(outside) == 0
    assert outside.mean() > 240


def test_the_picture_is_a_png_without_words_about_the_file():
    png = draw_map(peaked(), blank_slide(peaked(), 200))
    picture = Image.open(io.BytesIO(png))
    assert picture.width > 800
    assert picture.info.get("Software") == "medclip"
    assert KEY.encode() not in png
    assert png == draw_map(peaked(), blank_slide(peaked(), 200))


def test_a_map_without_any_evidence_is_drawn_without_colour():
    nothing = patch_map(make_slide_features(KEY), np.zeros(9), TITLE)
    assert nothing.strengths().tolist() == [0.0] * 9
    assert np.ptp(paint(nothing, blank_slide(nothing, 100))[10, 10]) == 0


def test_geojson_has_a_square_for_each_patch_in_pixels_of_the_finest_resolution(tmp_path: Path):
    path = write_pyramid(tmp_path / "slide.tiff", draw_section())
    one = peaked()
    document = json.loads(json.dumps(map_geojson(one, (MPP, MPP))))
    hottest = max(document["features"], key=lambda f: f["properties"]["measurements"]["value"])
    ring = hottest["geometry"]["coordinates"][0]
    assert ring[0] == [256.0, 256.0]
    assert ring[2] == [512.0, 512.0]
    assert hottest["properties"]["measurements"]["strength"] == 1.0
    with open_slide(path) as reader:
        mask = from_geojson(document, reader, mpp_um=8.0).mask
    assert mask.sum() == (3 * 128 / 8) ** 2


def test_geojson_counts_from_the_corner_that_a_viewer_shows_first():
    one = peaked()
    plain, moved = (map_geojson(one, (0.5, 0.25), origin)["features"][0]["geometry"] for origin in ((0, 0), (10, 20)))
    assert plain["coordinates"][0][2] == [512.0, 256.0]
    assert moved["coordinates"][0][2] == [492.0, 246.0]


def test_cells_of_a_dicom_map_may_be_higher_than_wide():
    corners = np.array([[0.0, 0.0], [128.0, 64.0]])
    one = PatchMap(TITLE, np.array([1, 2], np.float32), corners, (128.0, 64.0), (1000.0, 2000.0))
    data = parametric_map(one, blank_header(one, KEY, (0.5, 0.25)), KEY)
    spacing = data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    assert [float(v) for v in spacing] == [0.128, 0.064]


def test_where_patches_overlap_the_picture_has_their_mean():
    corners = np.array([[0.0, 0.0], [0.0, 64.0], [0.0, 500.0]])
    one = PatchMap(TITLE, np.array([1, 1, 2], np.float32), corners, (128.0, 128.0), (500.0, 1000.0))
    image = paint(one, blank_slide(one, 500))
    assert np.abs(image[30, 50].astype(int) - image[30, 10]).max() <= 1  # both patches, and the first alone
    assert np.abs(image[30, 50].astype(int) - image[30, 290]).max() > 10  # the strongest


def test_a_dicom_map_lies_where_its_patches_lie_on_the_slide(tmp_path: Path):
    slide = write_dicom_slide(tmp_path / "slide.dcm", draw_section(512, 640), photometric="RGB")
    header = slide_header(slide)
    assert header is not None
    write_parametric_map(tmp_path / "map.dcm", peaked(), header, KEY, "tiny 1")
    data = pydicom.dcmread(tmp_path / "map.dcm")
    values = np.frombuffer(data.FloatPixelData, "<f4").reshape(data.Rows, data.Columns)
    assert np.array_equal(values, rasterise(peaked()).values_RC)
    assert data.SOPClassUID == "1.2.840.10008.5.1.4.1.1.30"
    assert (data.StudyInstanceUID, data.FrameOfReferenceUID) == (header.StudyInstanceUID, header.FrameOfReferenceUID)
    assert data.SeriesInstanceUID != header.SeriesInstanceUID
    shared = data.SharedFunctionalGroupsSequence[0]
    assert [float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing] == [0.128, 0.128]
    groups = [*data.PerFrameFunctionalGroupsSequence, shared]
    place = next(g.PlanePositionSlideSequence[0] for g in groups if "PlanePositionSlideSequence" in g)
    # rows run along -x and columns along -y; the centre of the first patch is 63.75 µm from that of the first pixel
    assert float(place.XOffsetInSlideCoordinateSystem) == pytest.approx(-0.06375)
    assert float(place.YOffsetInSlideCoordinateSystem) == pytest.approx(-0.06375)


def test_a_dicom_map_of_another_format_tells_nothing_of_a_patient_and_is_the_same_each_time():
    one = peaked()
    keep = np.arange(9) != 5
    some = PatchMap(TITLE, one.values_N[keep], one.corners_um_N2[keep], one.patch_um, one.slide_um)
    first, second = (parametric_map(some, blank_header(some, KEY, (0.25, 0.25)), KEY) for _ in range(2))
    assert (first.PatientID, first.PatientName, first.AccessionNumber) == ("", "", "")
    assert KEY not in str(first)
    assert first.SOPInstanceUID == second.SOPInstanceUID
    values = np.frombuffer(first.FloatPixelData, "<f4").reshape(3, 3)
    assert values[1, 2] == PADDING == first.FloatPixelPaddingValue
    other = parametric_map(one, blank_header(one, KEY, (0.25, 0.25)), KEY)
    assert other.SOPInstanceUID != first.SOPInstanceUID
    assert other.FrameOfReferenceUID == first.FrameOfReferenceUID


def test_a_label_never_stands_for_the_slide_and_of_its_levels_the_finest_does(tmp_path: Path):
    def label(header):
        header.ImageType = ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]
        header.ImageOrientationSlide = [0, 1, 0, 1, 0, 0]

    one = write_dicom_slide(tmp_path / "a.dcm", draw_section(600, 700), photometric="RGB", edit=label)
    coarse = write_dicom_slide(tmp_path / "b.dcm", draw_section(128, 160), photometric="RGB")
    fine = write_dicom_slide(tmp_path / "c.dcm", draw_section(512, 640), photometric="RGB")
    assert slide_header(one) is None
    header = slide_header(one, coarse, fine)
    assert header is not None
    assert header.SOPInstanceUID == pydicom.dcmread(fine).SOPInstanceUID


def test_a_dicom_map_has_a_window_that_may_be_narrow_and_names_its_specimen_by_a_hash():
    data = parametric_map(peaked(), blank_header(peaked(), KEY, (0.25, 0.25)), KEY)
    window = data.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence[0]
    assert (window.VOILUTFunction, float(window.WindowCenter), float(window.WindowWidth)) == ("LINEAR_EXACT", 0.5, 3.0)
    (specimen,) = data.SpecimenDescriptionSequence
    assert specimen.SpecimenIdentifier == data.ContainerIdentifier != ""
    assert specimen.SpecimenUID.startswith("2.25.")


def test_other_files_have_no_slide_header(tmp_path: Path):
    (tmp_path / "text.txt").write_text("no slide")
    assert slide_header(tmp_path / "text.txt") is None
    assert slide_header(write_pyramid(tmp_path / "slide.tiff", draw_section(300, 300))) is None


def test_values_that_are_not_one_for_each_patch_are_refused():
    with pytest.raises(MedclipError, match="8 values for a slide with 9 patches"):
        patch_map(make_slide_features(KEY), np.zeros(8), TITLE)
