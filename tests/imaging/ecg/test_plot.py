"""The sheet that people read has the scale of paper."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medclip.errors import MedclipError
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.plot import layout, pixels_per_millivolt, pixels_per_second, render
from tests.kits.ecg import heart, signal


def _trace(sheet: np.ndarray, name: str, reach_px: int = 92) -> tuple[np.ndarray, np.ndarray]:
    """Read a lead back from the pixels: time in seconds and the middle of the ink in mV, column by column."""
    box = layout()[name]
    columns = np.arange(int(np.ceil(box.left_px)) + 1, int(box.left_px + box.seconds * pixels_per_second()) - 1)
    top = int(box.zero_px) - reach_px
    dark = np.clip(100.0 - sheet[top : top + 2 * reach_px, columns].max(2), 0, None)
    rows = (dark * (np.arange(2 * reach_px)[:, None] + 0.5)).sum(0) / np.maximum(dark.sum(0), 1e-9)
    return (columns + 0.5 - box.left_px) / pixels_per_second(), (box.zero_px - top - rows) / pixels_per_millivolt()


def test_a_step_of_one_millivolt_measures_79_pixels() -> None:
    step = np.where(np.arange(5000) % 1250 < 625, 0.0, 1.0)
    sheet = render(signal(step))
    seconds, values = _trace(sheet, "V3")
    low = values[(seconds > 0.3) & (seconds < 1.0)]
    high = values[(seconds > 1.5) & (seconds < 2.2)]
    assert (np.median(high) - np.median(low)) * pixels_per_millivolt() == pytest.approx(78.7, abs=1)
    assert np.median(low) == pytest.approx(0, abs=0.02)


def test_peaks_a_second_apart_measure_197_pixels() -> None:
    t = np.arange(5000) / 500
    spikes = np.exp(-(((t % 1.0) - 0.5) ** 2) / (2 * 0.01**2))
    seconds, values = _trace(render(signal(spikes)), "rhythm")
    peaks = [
        seconds[(seconds > s) & (seconds < s + 1)][np.argmax(values[(seconds > s) & (seconds < s + 1)])]
        for s in range(10)
    ]
    gaps = np.diff(peaks) * pixels_per_second()
    np.testing.assert_allclose(gaps, 196.9, atol=1.5)
    assert np.mean(gaps) == pytest.approx(196.9, abs=1)
    assert peaks[0] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("lead", ["I", "aVF", "V1", "V6"])
def test_the_sheet_can_be_digitised_back(lead: str) -> None:
    t = np.arange(5000) / 500
    values = np.stack([0.5 * np.sin(2 * np.pi * (1 + i / 6) * t) + 0.2 * np.sin(9 * t) for i in range(12)])
    seconds, found = _trace(render(signal(values)), lead)
    wanted = np.interp(seconds + layout()[lead].start_s, t, values[TWELVE.index(lead)])
    assert np.corrcoef(found, wanted)[0, 1] > 0.99
    assert np.abs(found - wanted).max() < 0.1


def test_the_page_is_11_by_8_and_a_half_inch_with_a_millimetre_grid() -> None:
    sheet = render(signal(np.zeros(5000)))
    assert sheet.shape == (1700, 2200, 3)
    assert sheet.dtype == np.uint8
    colours = sheet[400:500, 1000:1400].reshape(-1, 3)
    assert len({tuple(colour) for colour in colours.tolist()}) == 3


def test_missing_leads_say_so_and_nothing_else_changes_there() -> None:
    full = signal(np.zeros(5000))
    part = replace(full, mask=np.array([lead != "V2" for lead in TWELVE]))
    box = layout()["V2"]
    area = np.s_[int(box.zero_px) - 60 : int(box.zero_px) + 60, int(box.left_px) + 60 : int(box.left_px) + 450]
    differs = (render(full)[area] != render(part)[area]).any(2)
    assert differs.sum() > 300
    other = layout()["V3"]
    area = np.s_[int(other.zero_px) - 60 : int(other.zero_px) + 60, int(other.left_px) + 60 : int(other.left_px) + 450]
    assert not (render(full)[area] != render(part)[area]).any()


@pytest.mark.parametrize(("samples", "hz"), [(1, 500.0), (13, 500.0), (1000, 100.0), (50_000, 360.0)])
def test_any_length_and_rate_is_drawn(samples: int, hz: float) -> None:
    assert render(signal(heart(samples)["II"], hz), dpi=60).shape == (510, 660, 3)


def test_normalised_signals_are_not_drawn_as_millivolts() -> None:
    with pytest.raises(MedclipError, match="mV"):
        render(replace(signal(np.zeros(500)), unit="relative"))
