from __future__ import annotations

import csv
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.adapters.ultrasound import UltrasoundAdapter, find_regions
from medclip.dicom.header.read import DicomHeader, UltrasoundRegion
from medclip.errors import MedclipError, Reason
from medclip.sample import Kind, Modality, Sample
from medclip.settings import Settings
from tests.kits.files import ramp, write_dicom, write_image
from tests.kits.loops import read, region, regions, sector, write_cine

ADAPTER = UltrasoundAdapter()


def _still(path: Path, pixels: np.ndarray, **elements: Any) -> Sample:
    return read(ADAPTER, write_dicom(path, pixels, Modality="US", **elements))


def _steps(sample: Sample) -> list[str]:
    return [step.name for step in sample.provenance.steps]


def test_a_image_is_cropped_to_its_regions_with_inclusive_ends(tmp_path: Path) -> None:
    pixels = ramp(100, 120)
    sample = _still(
        tmp_path / "a",
        pixels,
        SequenceOfUltrasoundRegions=regions(region(10, 20, 49, 69), region(40, 30, 99, 79, data_type=2)),
    )
    (view,) = sample.views
    np.testing.assert_array_equal(view.pixels[:, :, 0], pixels[20:80, 10:100])
    assert view.spacing_mm == pytest.approx((0.5, 0.5))
    assert sample.headers["crop_from"] == "regions of the header"
    assert sample.headers["colour_doppler"] is None  # a flow region, but the pixels hold no colour
    assert (sample.kind, sample.modality) == (Kind.IMAGE, Modality.ULTRASOUND)


def test_traces_and_bars_are_no_image_but_better_than_nothing(tmp_path: Path) -> None:
    trace, spectrum = region(0, 80, 119, 99, data_type=10, form=4), region(10, 50, 109, 79, data_type=3, form=3)
    flat = region(10, 0, 69, 39)
    both = _still(tmp_path / "a", ramp(100, 120), SequenceOfUltrasoundRegions=regions(trace, flat, spectrum))
    assert both.views[0].pixels.shape == (40, 60, 1)
    alone = _still(tmp_path / "b", ramp(100, 120), SequenceOfUltrasoundRegions=regions(trace, spectrum))
    assert alone.views[0].pixels.shape == (30, 100, 1)
    assert alone.views[0].spacing_mm is None


def test_a_region_is_clipped_and_one_outside_is_not_believed(tmp_path: Path) -> None:
    wide = _still(tmp_path / "a", ramp(100, 120), SequenceOfUltrasoundRegions=regions(region(10, 20, 500, 600)))
    assert wide.views[0].pixels.shape == (80, 110, 1)
    away = _still(tmp_path / "b", ramp(100, 120), SequenceOfUltrasoundRegions=regions(region(300, 300, 500, 600)))
    assert "crop regions" not in _steps(away)


def test_regions_follow_pixels_that_were_made_square(tmp_path: Path) -> None:
    pixels = ramp(100, 120)
    plain = _still(tmp_path / "a", pixels, SequenceOfUltrasoundRegions=regions(region(20, 20, 79, 59)))
    tall = _still(
        tmp_path / "b", pixels, PixelAspectRatio=[2, 1], SequenceOfUltrasoundRegions=regions(region(20, 20, 79, 59))
    )
    assert plain.views[0].pixels.shape == (40, 60, 1)
    assert tall.views[0].pixels.shape == (80, 60, 1)
    assert tall.views[0].spacing_mm == pytest.approx((0.25, 0.5))


_coordinate = st.integers(0, 700)


@given(
    st.lists(
        st.tuples(_coordinate, _coordinate, _coordinate, _coordinate, st.integers(1, 5), st.integers(1, 4)), max_size=5
    ),
    st.integers(16, 600),
    st.integers(16, 600),
    st.sampled_from([1.0, 1.5, 2.0]),
)
def test_regions_give_a_box_inside_the_image_that_holds_each_of_them(
    corners: list[tuple[int, ...]], rows: int, columns: int, stretch: float
) -> None:
    found = tuple(
        UltrasoundRegion(min(a, c), min(b, d), max(a, c) + 1, max(b, d) + 1, form, kind)
        for a, b, c, d, form, kind in corners
    )
    header = DicomHeader(rows=rows, columns=columns, ultrasound_regions=found)
    height, width = round(rows * stretch), columns
    result = find_regions(header, height, width)
    if result is None:
        return
    box = result.box
    assert 0 <= box.top < box.bottom <= height
    assert 0 <= box.left < box.right <= width
    for one in found:
        if one.spatial_format == 1 and one.data_type in (1, 2) and one.left < columns and one.top < rows:
            assert box.left <= one.left
            assert box.right >= min(columns, one.right + 1)
            assert box.top <= one.top * height / rows + 0.5
            assert box.bottom >= min(rows, one.bottom + 1) * height / rows - 0.5


def test_a_image_without_regions_is_cropped_to_the_lit_sector(tmp_path: Path) -> None:
    sample = read(ADAPTER, write_image(tmp_path / "a.png", sector()[0]))
    (step,) = [step for step in sample.provenance.steps if step.name == "crop sector"]
    height, width = sample.views[0].pixels.shape[:2]
    assert 160 <= height <= 168, step
    assert 155 <= width <= 172, step
    assert sample.headers["burned_in_risk"] == "usual for ultrasound"


def test_black_depth_below_the_sector_is_kept_where_nothing_stands_in_it(tmp_path: Path) -> None:
    pixels = sector()[0]
    pixels[200:] = 0
    assert read(ADAPTER, write_image(tmp_path / "a.png", pixels)).views[0].pixels.shape[0] >= 200


def test_a_image_without_a_clear_sector_is_left_whole(tmp_path: Path) -> None:
    small = np.zeros((240, 320), np.uint8)
    small[20:60, 20:60] = 120
    assert read(ADAPTER, write_image(tmp_path / "a.png", small)).views[0].pixels.shape == (240, 320, 1)
    assert read(ADAPTER, write_image(tmp_path / "b.png", ramp(240, 320) // 2 + 60)).views[0].pixels.shape[:2] == (
        240,
        320,
    )


def _flow(frames: np.ndarray, size: int = 30) -> np.ndarray:
    colour = np.repeat(frames[..., None], 3, axis=-1)
    colour[..., 100 : 100 + size, 140 : 140 + size, :] = (220, 20, 30)
    return colour


def test_colour_flow_keeps_its_colour_and_a_coloured_tick_does_not(tmp_path: Path) -> None:
    flow = read(ADAPTER, write_image(tmp_path / "a.png", _flow(sector()[0])))
    assert flow.views[0].pixels.shape[2] == 3
    assert (flow.headers["colour_doppler"], flow.headers["colour_doppler_from"]) == (True, "saturation")
    tick = read(ADAPTER, write_image(tmp_path / "b.png", _flow(sector()[0], 4)))
    assert tick.views[0].pixels.shape[2] == 1
    assert tick.headers["colour_doppler"] is False


def test_a_tint_is_no_colour_flow(tmp_path: Path) -> None:
    grey = sector()[0].astype(float)
    sepia = np.stack([grey, grey * 0.6, grey * 0.2], axis=2).astype(np.uint8)
    assert read(ADAPTER, write_image(tmp_path / "a.png", sepia)).headers["colour_doppler"] is False


def test_the_header_may_deny_colour_but_not_promise_it(tmp_path: Path) -> None:
    denied = _still(tmp_path / "a", _flow(sector()[0]), UltrasoundColorDataPresent=0)
    assert (denied.headers["colour_doppler"], denied.views[0].pixels.shape[2]) == (False, 1)
    promised = _still(tmp_path / "b", np.repeat(sector()[0][..., None], 3, axis=-1), UltrasoundColorDataPresent=1)
    assert (promised.headers["colour_doppler"], promised.views[0].pixels.shape[2]) == (False, 1)


@pytest.mark.parametrize(
    ("stated", "burned", "risk"), [("YES", True, None), ("NO", False, None), (None, None, "usual for ultrasound")]
)
def test_the_burned_in_flag_is_the_headers_and_silence_is_a_risk(
    tmp_path: Path, stated: str | None, burned: bool | None, risk: str | None
) -> None:
    sample = _still(tmp_path / "a", sector()[0], BurnedInAnnotation=stated)
    assert sample.views[0].burned_in is burned
    assert sample.headers.get("burned_in_risk") == risk


def test_a_loop_gives_views_frames_and_their_time(tmp_path: Path) -> None:
    frames = sector(20)
    path = write_cine(
        tmp_path / "a", frames, FrameTime="33.3", SequenceOfUltrasoundRegions=regions(region(80, 40, 239, 199))
    )
    sample = read(ADAPTER, path)
    assert sample.kind is Kind.CINE
    assert sample.frames is not None
    np.testing.assert_array_equal(sample.frames[..., 0], frames[:, 40:200, 80:240])
    assert len(sample.views) == 16
    for view, number in zip(sample.views, (0, 1, 3, 4, 5, 6, 8, 9, 10, 11, 13, 14, 15, 16, 18, 19), strict=True):
        np.testing.assert_array_equal(view.pixels[..., 0], frames[number, 40:200, 80:240])
    assert (sample.headers["frame_time_ms"], sample.headers["frames"]) == (33.3, 20)
    assert sample.provenance.preprocessing == ADAPTER.preprocessing_of(Kind.CINE) != ADAPTER.preprocessing


def test_a_loop_is_cropped_to_what_moves_not_to_a_still_logo(tmp_path: Path) -> None:
    frames = sector(8)
    frames[:, 60:180, 2:40] = 200  # a logo as large as a part of the sector
    still = read(ADAPTER, write_image(tmp_path / "a.png", frames[0])).views[0].pixels.shape
    loop = read(ADAPTER, write_cine(tmp_path / "b", frames)).views[0].pixels.shape
    assert still[1] > 220
    assert loop[1] < 175


def test_black_frames_give_no_view_but_stay_frames(tmp_path: Path) -> None:
    frames = sector(6)
    frames[:2] = 0
    frames[1, 100:103, 100:103] = 255  # a lead-in that holds a label only
    sample = read(ADAPTER, write_cine(tmp_path / "a", frames))
    assert sample.frames is not None
    assert (len(sample.frames), len(sample.views)) == (6, 4)
    assert sample.provenance.steps[-1].detail.endswith(": 2, 3, 4, 5")
    with pytest.raises(MedclipError) as caught:
        read(ADAPTER, write_cine(tmp_path / "b", np.zeros_like(frames)))
    assert caught.value.reason is Reason.CONSTANT_IMAGE


def test_a_loop_beyond_the_memory_limit_gives_views_without_frames(tmp_path: Path) -> None:
    frames = sector(40)
    path = write_cine(tmp_path / "a", frames)
    whole, part = read(ADAPTER, path), read(ADAPTER, path, Settings(max_volume_bytes=frames.nbytes - 1))
    assert whole.frames is not None
    assert part.frames is None
    assert len(part.views) == 16
    for one, other in zip(whole.views, part.views, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
    assert "exceed the memory limit" in " ".join(step.detail for step in part.provenance.steps)


def test_a_video_is_a_loop_in_grey(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from tests.kits.video import write_video

    frames = np.repeat(sector(18)[..., None], 3, axis=-1)
    path = write_video(tmp_path / "a.mp4", frames)
    sample = read(ADAPTER, path)
    assert sample.frames is not None
    assert sample.frames.shape[3] == 1
    assert 160 <= sample.frames.shape[1] <= 172
    assert sample.headers["frame_time_ms"] == pytest.approx(40)
    part = read(ADAPTER, path, Settings(max_volume_bytes=frames.nbytes - 1))
    assert part.frames is None
    assert len(part.views) == 16


def test_other_objects_and_radiographs_are_refused(tmp_path: Path) -> None:
    for code in ("CR", "RG", "MG"):
        with pytest.raises(MedclipError) as caught:
            read(ADAPTER, write_dicom(tmp_path / code, ramp(), Modality=code))
        assert caught.value.reason is Reason.NOT_SUPPORTED_YET
    assert read(ADAPTER, write_dicom(tmp_path / "ot", ramp(), Modality="OT")).views


def test_the_adapter_survives_pickling() -> None:
    assert pickle.loads(pickle.dumps(ADAPTER)).preprocessing == ADAPTER.preprocessing


@pytest.mark.shared
def test_real_images_lose_their_text_and_keep_their_flow(shared: Path) -> None:
    folder = shared / "data/field_dev/dicom-us"
    power = read(ADAPTER, folder / "us1/US1_RLE")
    assert power.headers["colour_doppler"] is True
    assert power.views[0].pixels.shape[0] < 260  # of 480: the sector without the text above and below
    twin = read(ADAPTER, folder / "us1/US1_J2KR")
    np.testing.assert_array_equal(power.views[0].pixels, twin.views[0].pixels)
    assert read(ADAPTER, folder / "esopecho/gdcm-US-RGB-8-esopecho.dcm").headers["colour_doppler"] is True
    for name in ("palette/OBXXXX1A_rle.dcm", "palette/examples_palette.dcm"):
        sample = read(ADAPTER, folder / name)
        assert sample.headers["colour_doppler"] is False
        assert sample.views[0].spacing_mm == pytest.approx((0.26229, 0.26229), rel=1e-4)
    burned = read(ADAPTER, folder / "kidney-burnedin/GREYSCALE_IMAGE.dcm")
    assert burned.views[0].burned_in is True
    assert burned.views[0].pixels.shape == (721, 997, 1)


@pytest.mark.shared
def test_a_real_echo_loop_is_its_sector_with_square_pixels(shared: Path) -> None:
    sample = read(ADAPTER, shared / "data/field_dev/dicom-us/cine/Issue16.dcm")
    assert sample.frames is not None
    assert sample.frames.shape == (34, 350, 497, 1)
    row, column = sample.views[0].spacing_mm or (0, 1)
    assert row == pytest.approx(column, rel=0.01)
    assert sample.headers["frame_time_ms"] == 30
    assert sample.headers["colour_doppler"] is False  # UltrasoundColorDataPresent says 1: the ECG trace is green


@pytest.mark.shared
def test_real_lung_loops_start_behind_their_black_lead_in(shared: Path) -> None:
    pytest.importorskip("av")
    folder = shared / "data/covid_blues"
    with (folder / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows[::10]:
        sample = read(ADAPTER, folder / row["file"])
        assert sample.frames is not None
        assert sample.frames.shape[0] == float(row["frames"])
        assert sample.frames.shape[3] == 1
        assert min(sample.frames.shape[1:3]) > 250
        assert all(view.pixels.mean() > 8 for view in sample.views)
        assert len(sample.views) == 16
