"""Our own sheets are read back, turned and photographed ones are laid flat, and what is not sure is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.sheet.digitise import DigitisedSheet, digitise
from medclip.imaging.ecg.sheet.draw_sheet import GRIDS, Distortion, SheetOptions, distort, draw_distortion, render
from medclip.imaging.ecg.sheet.layouts import LAYOUTS
from medclip.imaging.ecg.twelve_leads import canonical
from medclip.sample import Signal
from tests.kits.ecg import heart, read, signal

RECORD = signal(np.stack(list(heart(5000).values())))


def _likeness(sheet: DigitisedSheet, record: Signal, least: float = 0.0) -> list[float]:
    """Return the correlation of each lead with the record, over what was read of it with more than this confidence."""
    shown = sheet.confidence > least
    return [
        float(np.corrcoef(sheet.signal.values_mv[n][shown[n]], record.values_mv[n][shown[n]])[0, 1])
        for n in np.flatnonzero(sheet.signal.mask)
    ]


@pytest.mark.parametrize(("layout", "grid"), [*zip(LAYOUTS, GRIDS, strict=False), ("3x4+1", "grey")])
def test_our_own_sheets_are_read_back(layout: str, grid: str) -> None:
    sheet = digitise(render(RECORD, SheetOptions(layout=layout, grid=grid, dpi=150))[0])
    assert sheet.layout == layout
    assert sheet.rhythm == LAYOUTS[layout].rhythm
    assert sheet.signal.mask.all()
    likeness = _likeness(sheet, RECORD)
    assert min(likeness) > 0.98  # a complex stands on the seam
    assert all(likeness[TWELVE.index(lead)] > 0.98 for lead in sheet.sure_leads)
    shown = sheet.shown
    read, true = sheet.signal.values_mv[shown], RECORD.values_mv[shown]
    assert np.corrcoef(read, true)[0, 1] > 0.99
    assert abs(np.mean(read - true)) < 0.02
    expected = {"3x4": 0.25, "3x4+1": 0.3125, "3x4+3": 0.4375, "6x2": 0.5, "12x1": 1.0}[layout]
    assert shown.mean() == pytest.approx(expected, abs=0.02)
    assert not sheet.notes


@pytest.mark.parametrize("gain", [5.0, 20.0])
def test_the_pulse_gives_the_gain(gain: float) -> None:
    sheet = digitise(render(RECORD, SheetOptions(layout="3x4", mm_per_mv=gain, dpi=150))[0])
    shown = sheet.shown
    slope = np.polyfit(RECORD.values_mv[shown], sheet.signal.values_mv[shown], 1)[0]
    assert slope == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    "distortion",
    [
        Distortion(degrees=3.0),
        Distortion(degrees=90.0),
        Distortion(degrees=180.0),
        Distortion(degrees=-4.0, corners=((0.05, 0.03), (-0.06, 0.0), (0.02, -0.03), (0.0, 0.04))),
        draw_distortion(1),
    ],
    ids=["turned", "on its side", "upside down", "at an angle", "photographed"],
)
def test_a_sheet_that_lies_otherwise_is_laid_flat_and_a_note_says_so(distortion: Distortion) -> None:
    drawn = render(RECORD, SheetOptions(dpi=150))
    sheet = digitise(distort(*drawn, distortion)[0])
    assert sheet.layout == "3x4+1"
    assert min(_likeness(sheet, RECORD, least=0.6)) > 0.96
    assert any("turned back" in note or "laid flat" in note for note in sheet.notes)


def test_columns_of_a_record_of_four_seconds_are_put_where_they_overlap() -> None:
    short = signal(np.stack(list(heart(2000).values())))
    sheet = digitise(render(short, SheetOptions(dpi=150))[0])
    assert sheet.column_starts_s == pytest.approx((0, 0.5, 1.0, 1.5), abs=0.03)
    assert any("begin at 0.0, 0.5, 1.0 and 1.5 s" in note for note in sheet.notes)
    for n, lead in enumerate(TWELVE):
        shown = np.flatnonzero(sheet.confidence[n] > 0.6)
        shown = shown[shown < 2000]
        assert np.corrcoef(sheet.signal.values_mv[n][shown], short.values_mv[n][shown])[0, 1] > 0.97, lead


def test_columns_of_a_strip_of_two_and_a_half_seconds_are_of_the_same_moment() -> None:
    short = signal(np.stack(list(heart(1250).values())))
    sheet = digitise(render(short, SheetOptions(dpi=150))[0])
    assert sheet.column_starts_s == pytest.approx((0, 0, 0, 0), abs=0.03)
    v6 = TWELVE.index("V6")
    shown = np.flatnonzero(sheet.confidence[v6] > 0.6)
    shown = shown[shown < 1250]
    assert len(shown) > 1100
    assert np.corrcoef(sheet.signal.values_mv[v6][shown], short.values_mv[v6][shown])[0, 1] > 0.97


def test_waves_that_cross_other_rows_are_parted_or_called_in_doubt() -> None:
    tall = RECORD.values_mv.copy()
    tall[6:10] *= np.array([[2.5], [-2.5], [2.5], [-2.5]], np.float32)
    sheet = digitise(render(replace(RECORD, values_mv=tall), SheetOptions(layout="12x1", dpi=200))[0])
    likeness = dict(zip(TWELVE, _likeness(sheet, replace(RECORD, values_mv=tall)), strict=True))
    assert min(likeness[lead] for lead in sheet.sure_leads) > 0.99
    assert sum(value > 0.97 for value in likeness.values()) >= 10
    assert sheet.doubt_mv.max() > 1.0
    assert (sheet.confidence[sheet.doubt_mv > 0.5] < 0.5).mean() > 0.9


def test_a_lead_that_was_not_recorded_is_masked_and_named() -> None:
    part = replace(RECORD, mask=np.array([lead != "V2" for lead in TWELVE]))
    sheet = digitise(render(part, SheetOptions(dpi=150))[0])
    assert [lead for lead, seen in zip(TWELVE, sheet.signal.mask, strict=True) if not seen] == ["V2"]
    assert "No trace of V2." in sheet.notes
    assert not sheet.signal.values_mv[TWELVE.index("V2")].any()
    assert sheet.lead_confidence["V2"] == 0 < 0.9 < sheet.lead_confidence["V3"]


def test_ink_that_is_missing_is_read_with_no_confidence() -> None:
    pixels, places = render(RECORD, SheetOptions(layout="12x1", dpi=150))
    box = places.box_of("V1")
    left, right = (int(box.left_px + seconds * places.px_per_s) for seconds in (4.0, 4.6))
    half = int(12 * places.px_per_mm)
    covered = pixels.copy()
    covered[int(box.zero_px) - half : int(box.zero_px) + half, left:right] = pixels[:half].mean((0, 1))
    sheet = digitise(covered)
    sure = sheet.confidence[TWELVE.index("V1")]
    assert sure[2060:2240].max() == 0
    assert np.delete(sure, slice(1950, 2350)).mean() > 0.9


def test_leads_that_run_into_each_other_are_not_called_sure() -> None:
    values = RECORD.values_mv.copy()
    values[TWELVE.index("V2"), 2000:3000] -= 2.5  # onto the zero line of V3, 25 mm below
    values[TWELVE.index("V3"), 2000:3000] = values[TWELVE.index("V2"), 2000:3000] + 2.5
    sheet = digitise(render(replace(RECORD, values_mv=values), SheetOptions(layout="12x1", dpi=150))[0])
    crossing = sheet.confidence[[TWELVE.index("V2"), TWELVE.index("V3")], 2100:2900]
    assert (crossing < 0.5).all(1).any()
    assert any("not sure" in note or "No trace" in note for note in sheet.notes) or (crossing < 0.5).mean() > 0.4


def test_swapped_limb_leads_contradict_einthoven() -> None:
    order = [TWELVE.index(lead) for lead in ("III", "II", "I")]
    swapped = replace(RECORD, values_mv=np.concatenate([-RECORD.values_mv[order], RECORD.values_mv[3:]]))
    sheet = digitise(render(replace(swapped), SheetOptions(layout="6x2", dpi=150))[0], layout="6x2")
    assert not any("Einthoven" in note for note in sheet.notes)  # -III and -I still add up to -II
    broken = replace(RECORD, values_mv=np.concatenate([RECORD.values_mv[[6, 1, 7]], RECORD.values_mv[3:]]))
    sheet = digitise(render(broken, SheetOptions(layout="6x2", dpi=150))[0], layout="6x2")
    assert any("Einthoven" in note for note in sheet.notes)


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.full((800, 1000, 3), 255, np.uint8), Reason.NOT_AN_IMAGE),
        (np.random.default_rng(0).integers(0, 255, (600, 800, 3)).astype(np.uint8), Reason.NO_SCALE),
        (np.zeros((100, 100, 3), np.uint8), Reason.TOO_SMALL),
    ],
    ids=["blank", "noise", "small"],
)
def test_what_is_no_sheet_has_a_reason(pixels: np.ndarray, reason: Reason) -> None:
    with pytest.raises(MedclipError) as refused:
        digitise(pixels)
    assert refused.value.reason is reason


def test_a_sheet_without_traces_or_with_other_rows_has_a_reason() -> None:
    empty = replace(RECORD, mask=np.zeros(12, np.bool_))
    pixels, places = render(RECORD, SheetOptions(dpi=150))
    with pytest.raises(MedclipError, match="3 rows") as refused:
        digitise(pixels[: int(places.boxes[-1].zero_px) - 60], layout="12x1")
    assert refused.value.reason is Reason.NOT_SUPPORTED_YET
    with pytest.raises(MedclipError, match="no lead whose trace") as refused:
        digitise(render(empty, SheetOptions(dpi=150))[0])
    assert refused.value.reason is Reason.NOT_AN_IMAGE
    with pytest.raises(MedclipError, match="no layout"):
        digitise(pixels, layout="2x6")


def test_the_map_of_a_distorted_sheet_points_at_the_ink() -> None:
    drawn, places = render(RECORD, SheetOptions(dpi=150))
    spoilt, moved = distort(drawn, places, Distortion(degrees=5, corners=((0.03, 0), (0, 0.02), (0, 0), (0, 0))))
    assert spoilt.shape == (moved.height_px, moved.width_px, 3)
    box = moved.box_of("II", rhythm=True)
    seconds = np.arange(100, 4900, 7) / 500
    points = moved.to_pixels(box, seconds, RECORD.values_mv[1][100:4900:7]).astype(int)
    dark = np.array([spoilt[y - 1 : y + 2, x - 1 : x + 2].max(2).min() for x, y in points])
    assert (dark < 140).mean() > 0.97


def test_the_same_values_spoil_a_sheet_in_the_same_way() -> None:
    drawn = render(RECORD, SheetOptions(dpi=60))
    assert draw_distortion(3) == draw_distortion(3) != draw_distortion(4)
    np.testing.assert_array_equal(distort(*drawn, draw_distortion(3))[0], distort(*drawn, draw_distortion(3))[0])
    np.testing.assert_array_equal(distort(*drawn, draw_distortion(3, strength=0))[0], drawn[0])


@pytest.mark.shared
@pytest.mark.parametrize("layout", ["3x4+1", "12x1"])
def test_sheets_of_real_records_are_read_back(shared: Path, layout: str) -> None:
    path = sorted((shared / "data" / "ptbxl" / "records").glob("*.hea"))[40]
    record = canonical(read(path))
    drawn, places = render(record, SheetOptions(layout=layout))
    sheet = digitise(drawn)
    assert len(sheet.sure_leads) >= 10
    moments = np.arange(5000) / 500 + places.start_s
    for lead in sheet.sure_leads:
        n = TWELVE.index(lead)
        true = np.interp(moments, np.arange(record.values_mv.shape[1]) / record.sampling_hz, record.values_mv[n])
        shown = sheet.shown[n]
        assert np.corrcoef(sheet.signal.values_mv[n][shown], true[shown])[0, 1] > 0.99, lead


@pytest.mark.shared
def test_sheets_without_a_legible_grid_are_refused_and_never_answered(shared: Path) -> None:
    sheets = sorted((shared / "data" / "ecg_sheet").rglob("*.jp*g"))[::60]
    assert sheets
    for path in sheets:
        with Image.open(path) as image:
            pixels = np.atleast_3d(np.asarray(image))
        with pytest.raises(MedclipError) as refused:
            digitise(pixels)
        assert refused.value.reason is Reason.NO_SCALE


def test_limb_leads_that_contradict_each_other_are_none_to_be_sure_of() -> None:
    leads = heart(5000)
    leads |= {"I": -2 * leads["II"], "III": 1.5 * leads["II"], "aVR": leads["aVF"], "aVL": leads["aVF"]}
    sheet = digitise(
        render(signal(np.stack(list(leads.values()))), SheetOptions(layout="6x2", dpi=150))[0], layout="6x2"
    )
    assert sheet.contradicts
    assert any("Einthoven" in note for note in sheet.notes)
    assert not set(sheet.sure_leads) & set(TWELVE[:6])
    assert set(sheet.sure_leads) & set(TWELVE[6:])


def test_nothing_is_said_of_limb_leads_that_are_not_there() -> None:
    chest = replace(RECORD, mask=np.arange(12) >= 6)
    sheet = digitise(render(chest, SheetOptions(layout="12x1", dpi=150))[0], layout="12x1")
    assert not sheet.contradicts
    assert not any("Einthoven" in note for note in sheet.notes)
