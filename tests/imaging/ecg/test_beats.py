"""QRS complexes: where they are found, and what is cut out around them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from medclip.imaging.ecg.quality import beat_windows, coarse, find_beats, qrs_part


def _spikes(at_s: NDArray[np.floating], hz: float) -> NDArray[np.float32]:
    t = np.arange(round(10 * hz)) / hz
    beat = np.exp(-((t[:, None] - at_s) ** 2) / (2 * 0.012**2)).sum(1)
    return np.stack([beat, -0.5 * beat]).astype(np.float32)


@pytest.mark.parametrize("hz", [100.0, 250.0, 500.0, 1000.0])
def test_beats_are_found_at_their_peaks_at_any_rate(hz: float) -> None:
    at_s = 0.45 + 0.8 * np.arange(12)
    lines, rate = coarse(_spikes(at_s, hz), hz)
    found = find_beats(lines, rate)
    assert len(found) == len(at_s)
    assert np.abs(found / rate - at_s).max() < 0.009, "a QRS is some 90 ms wide, and a slope is measured over 24 ms"


def test_the_part_of_a_window_that_is_called_qrs_has_the_peak_in_its_middle() -> None:
    lines, rate = coarse(_spikes(0.45 + 0.8 * np.arange(12), 500.0), 500.0)
    windows = beat_windows(lines, find_beats(lines, rate), rate)
    part = qrs_part(rate)
    peaks = windows[:, 0].argmax(1)
    middle = (part.start + part.stop - 1) / 2
    assert np.abs(peaks - middle).max() <= 2
    assert windows[:, 1, part].min() == pytest.approx(-0.5, abs=0.02)


def test_a_flat_record_and_a_part_of_a_second_have_no_beats() -> None:
    assert find_beats(np.zeros((2, 1000), np.float32), 250.0).size == 0
    assert find_beats(_spikes(np.array([0.3]), 250.0)[:, :200], 250.0).size == 0
