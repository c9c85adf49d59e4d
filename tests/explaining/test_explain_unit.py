"""What is made of maps: shares of an ECG's leads."""

from __future__ import annotations

import numpy as np
import pytest

from medclip.explaining.explain_unit import share_on_leads
from medclip.explaining.explanation import Explanation, HeatMap
from medclip.imaging.geometry import placement


def test_each_lead_has_the_share_of_its_band_of_a_cutting():
    top, strip = np.zeros((6, 6), np.float32), np.zeros((6, 6), np.float32)
    top[0, 2], top[5, 2], strip[3, 3] = 3, 1, 4
    heat = HeatMap("a", "", "a", "t", 0.0, (0.0, 0.0), (top, strip), ("", ""), (0.0, 0.0), "m", "l", 0)
    labels = ("leads I, II, III", "rhythm strip, lead II")
    unit = Explanation(1, "a", "signal", labels=labels, placements=(placement(60, 60, 60, "longest"),) * 2)
    shares = share_on_leads(unit, heat)
    assert list(shares) == ["I", "II", "III", "rhythm strip, lead II"]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    assert shares["I"] > 2 * shares["III"] > 0.1
    assert shares["II"] < 0.02
