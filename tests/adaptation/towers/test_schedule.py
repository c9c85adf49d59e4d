"""The cosine reaches its floor with the last step; upstream's comes back."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from medclip.adaptation.towers.schedule import FLOOR, cosine_rate, learning_rates
from medclip.errors import MedclipError


@pytest.mark.golden
def test_rates_are_the_golden_ones(golden: Path) -> None:
    stored = np.load(golden / "clip_svd_lr_schedules.npz", allow_pickle=False)
    for name in stored.files:
        found = re.search(r"_T(?:otal)?_?T?(\d+)_lr([\d.e+-]+)$", name) or re.search(r"T(\d+)_lr([\d.e+-]+)$", name)
        assert found is not None, name
        period, lr, expected = int(found[1]), float(found[2]), stored[name]
        rates = [cosine_rate(step, lr, period) for step in range(len(expected))]
        np.testing.assert_allclose(rates, expected, rtol=1e-9, atol=1e-15)
        same = {"num_epochs": period, "compat": "upstream"} if period < len(expected) else {}
        np.testing.assert_allclose(learning_rates(len(expected), lr, **same), expected, rtol=1e-9, atol=1e-15)


def test_ours_falls_to_the_floor_and_upstreams_is_back_at_its_maximum_at_two_steps_an_epoch() -> None:
    ours, theirs = learning_rates(200, 7e-3), learning_rates(200, 7e-3, num_epochs=100, compat="upstream")
    assert ours == sorted(ours, reverse=True)
    assert ours[-1] < 2 * FLOOR
    assert theirs[100] == pytest.approx(FLOOR)
    assert theirs[-1] > 0.999 * 7e-3


@pytest.mark.parametrize("wrong", [{"compat": "upstream"}, {"compat": "paper", "num_epochs": 3}])
def test_another_word_or_no_epochs_are_refused(wrong: dict) -> None:
    with pytest.raises(MedclipError, match="upstream"):
        learning_rates(10, 1e-3, **wrong)
