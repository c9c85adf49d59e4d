"""The sheet that people read has the scale of paper."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medclip.errors import MedclipError
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.sheet.draw_sheet import GRIDS, SheetOptions, render
from medclip.imaging.ecg.sheet.layouts import LAYOUTS, SheetMap
from tests.kits.ecg import heart, signal

_PX_PER_S, _PX_PER_MV = 25 * 200 / 25.4, 10 * 200 / 25.4


def _trace(
    drawn: tuple[np.ndarray, SheetMap], lead: str, *, rhythm: bool = False, reach_px: int = 92
) -> tuple[np.ndarray, np.ndarray]:
    """Read a lead back: time in its box in seconds, and the middle of the ink in mV, column by column."""
    sheet, places = drawn
    box = places.box_of(lead, rhythm=rhythm)
    columns = np.arange(int(np.ceil(box.left_px)) + 1, int(box.left_px + box.seconds * _PX_PER_S) - 1)
    top = int(box.zero_px) - reach_px
    dark = np.clip(100.0 - sheet[top : top + 2 * reach_px, columns].max(2), 0, None)
    rows = (dark * (np.arange(2 * reach_px)[:, None] + 0.5)).sum(0) / np.maximum(dark.sum(0), 1e-9)
    return (columns + 0.5 - box.left_px) / _PX_PER_S, (box.zero_px - top - rows) / places.px_per_mv


def test_a_step_of_one_millivolt_measures_79_pixels() -> None:
    seconds, values = _trace(render(signal(np.where(np.arange(5000) % 1250 < 625, 0.0, 1.0))), "V3")
    low = values[(seconds > 0.3) & (seconds < 1.0)]
    high = values[(seconds > 1.5) & (seconds < 2.2)]
    assert (np.median(high) - np.median(low)) * _PX_PER_MV == pytest.approx(78.7, abs=1)
    assert np.median(low) == pytest.approx(0, abs=0.02)


def test_peaks_a_second_apart_measure_197_pixels() -> None:
    t = np.arange(5000) / 500
    spikes = np.exp(-(((t % 1.0) - 0.5) ** 2) / (2 * 0.01**2))
    seconds, values = _trace(render(signal(spikes)), "II", rhythm=True)
    peaks = [
        seconds[(seconds > s) & (seconds < s + 1)][np.argmax(values[(seconds > s) & (seconds < s + 1)])]
        for s in range(10)
    ]
    gaps = np.diff(peaks) * _PX_PER_S
    np.testing.assert_allclose(gaps, 196.9, atol=1.5)
    assert np.mean(gaps) == pytest.approx(196.9, abs=1)
    assert peaks[0] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_map_turns_pixels_back_into_time_and_voltage(layout: str) -> None:
    t = np.arange(5000) / 500
    values = np.stack([0.4 * np.sin(2 * np.pi * (1 + i / 6) * t) + 0.2 * np.sin(9 * t) for i in range(12)])
    drawn = render(signal(values), SheetOptions(layout=layout))
    for lead in ("I", "aVF", "V1", "V6"):
        seconds, read = _trace(drawn, lead, reach_px=52)
        box = drawn[1].box_of(lead)
        # Below the ticks between the columns and the names of the leads.
        free = (seconds > 0.45) & (seconds < box.seconds - 0.05)
        expected = np.interp(seconds + box.start_s, t, values[TWELVE.index(lead)])
        assert np.corrcoef(read[free], expected[free])[0, 1] > 0.99
        assert np.abs(read - expected)[free].max() < 0.1


def test_a_gain_of_5_halves_every_height() -> None:
    sheet, places = render(signal(np.full(5000, 2.0)), SheetOptions(mm_per_mv=5))
    box = places.box_of("V6")
    column = sheet[int(box.zero_px) - 120 : int(box.zero_px), int(box.left_px) + 300].max(1)
    assert 120 - np.argmin(column) == pytest.approx(2 * _PX_PER_MV / 2, abs=1.5)


@pytest.mark.parametrize("grid", GRIDS)
def test_no_colour_of_a_grid_is_as_dark_as_ink(grid: str) -> None:
    sheet, places = render(signal(np.zeros(5000)), SheetOptions(grid=grid))
    page = sheet[: int(places.boxes[0].zero_px) - 300]
    assert len({tuple(colour) for colour in page.reshape(-1, 3).tolist()}) == 3
    assert page.max(2).min() > 150


def test_the_map_survives_as_json() -> None:
    places = render(signal(np.zeros(5000)), SheetOptions(layout="3x4+3"))[1]
    assert SheetMap.from_json(places.to_json()) == places
    assert [box.lead for box in places.boxes if box.rhythm] == ["V1", "II", "V5"]


def test_a_strip_whose_lead_is_missing_shows_another_and_says_which() -> None:
    part = replace(signal(heart(5000)["I"]), mask=np.array([lead not in ("II", "I") for lead in TWELVE]))
    sheet, places = render(part)
    assert [box.lead for box in places.boxes if box.rhythm] == ["III"]
    box = places.boxes[-1]
    assert sheet[int(box.zero_px) - 40 : int(box.zero_px) + 40, 1000].min() < 60


def test_a_header_is_written_above_the_leads_and_nowhere_else() -> None:
    plain, headed = (render(signal(np.zeros(5000)), SheetOptions(header=header))[0] for header in ("", "ECG REPORT"))
    rows = np.flatnonzero((plain != headed).any((1, 2)))
    assert 0 < rows.min() < rows.max() < 15 * 200 / 25.4


def test_the_page_is_11_by_8_and_a_half_inch_with_a_millimetre_grid() -> None:
    sheet = render(signal(np.zeros(5000)))[0]
    assert sheet.shape == (1700, 2200, 3)
    assert sheet.dtype == np.uint8
    colours = sheet[400:500, 1000:1400].reshape(-1, 3)
    assert len({tuple(colour) for colour in colours.tolist()}) == 3


def test_missing_leads_say_so_and_nothing_else_changes_there() -> None:
    full = signal(np.zeros(5000))
    part = replace(full, mask=np.array([lead != "V2" for lead in TWELVE]))
    (before, places), (after, _) = render(full), render(part)
    box = places.box_of("V2")
    area = np.s_[int(box.zero_px) - 60 : int(box.zero_px) + 60, int(box.left_px) + 60 : int(box.left_px) + 450]
    differs = (before[area] != after[area]).any(2)
    assert differs.sum() > 300
    other = places.box_of("V3")
    area = np.s_[int(other.zero_px) - 60 : int(other.zero_px) + 60, int(other.left_px) + 60 : int(other.left_px) + 450]
    assert not (before[area] != after[area]).any()


@pytest.mark.parametrize(("samples", "hz"), [(1, 500.0), (13, 500.0), (1000, 100.0), (50_000, 360.0)])
def test_any_length_and_rate_is_drawn(samples: int, hz: float) -> None:
    assert render(signal(heart(samples)["II"], hz), SheetOptions(dpi=60))[0].shape == (510, 660, 3)


def test_normalised_signals_are_not_drawn_as_millivolts() -> None:
    with pytest.raises(MedclipError, match="mV"):
        render(replace(signal(np.zeros(500)), unit="relative"))


@pytest.mark.parametrize("wrong", [{"layout": "4x3"}, {"grid": "violet"}, {"dpi": 20}, {"mm_per_mv": 7.0}])
def test_a_sheet_that_cannot_be_drawn_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(MedclipError, match="an ECG sheet has"):
        SheetOptions(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("around", [(0, 0), (1875, 1875)], ids=["as stored", "padded"])
def test_a_record_of_two_and_a_half_seconds_shows_all_its_leads_at_the_same_moment(around: tuple[int, int]) -> None:
    strip = np.pad(np.arange(12)[:, None] * 0.05 + np.zeros((12, 1250)), ((0, 0), around))
    drawn = render(replace(signal(strip), padded=around))
    for n, lead in enumerate(TWELVE):
        seconds, values = _trace(drawn, lead, reach_px=52)
        assert np.median(values[(seconds > 0.6) & (seconds < 2.4)]) == pytest.approx(n * 0.05, abs=0.02)
    assert {box.start_s for box in drawn[1].boxes if not box.rhythm} == {around[0] / 500}


def test_columns_of_a_record_of_four_seconds_overlap_and_together_show_all_of_it() -> None:
    places = render(signal(np.zeros(2000)))[1]
    assert [places.box_of(lead).start_s for lead in ("I", "aVR", "V1", "V4")] == pytest.approx([0, 0.5, 1.0, 1.5])


def test_of_a_long_record_the_middle_ten_seconds_are_drawn_and_other_ones_on_demand() -> None:
    long = signal(heart(15_000)["II"])
    _, places = render(long)
    assert places.start_s == 10.0
    _, early = render(long, SheetOptions(start_s=2.0))
    assert early.start_s == 2.0


def test_zeros_around_a_record_are_not_drawn_as_a_flat_line() -> None:
    sheet, places = render(replace(signal(np.pad(np.full(2500, 0.4), 1250)), padded=(1250, 1250)))
    box = places.box_of("II", rhythm=True)
    row = slice(int(box.zero_px) - 6, int(box.zero_px) + 6)
    assert sheet[row, int(box.left_px + 0.4 * _PX_PER_S) : int(box.left_px + 2.4 * _PX_PER_S)].max(2).min() > 150
