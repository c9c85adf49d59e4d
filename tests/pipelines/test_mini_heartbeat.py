"""The heartbeat that stands beside every figure of ECG records, and what the guard is shown of masks and sheets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.kits.stages import load_stage

FOLDER = Path(__file__).parents[2] / "pipelines" / "mini"


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    return lambda name: load_stage(FOLDER, name)


def record(rate_bpm: float, height: float, hz: float = 250) -> np.ndarray:
    """Return ten seconds of spikes of a rate, as high in every lead."""
    time = np.arange(int(10 * hz)) / hz
    beats = np.exp(-(((time * rate_bpm / 60 % 1) - 0.5) ** 2) / 2 / 0.012**2)
    noise = np.random.default_rng(0).normal(0, 0.005, (12, len(time)))
    return (height * beats + noise).astype(np.float32)


def test_a_heartbeat_has_the_height_of_the_beat_and_the_distance_of_beats(stage: Any) -> None:
    heartbeat = stage("heartbeat")
    slow, high = heartbeat.heartbeat(record(60, 1), 250), heartbeat.heartbeat(record(75, 2), 250)
    assert slow.shape == high.shape == (heartbeat.FEATURES,)
    assert slow[-5] == pytest.approx(1.0, abs=0.02)
    assert high[-5] == pytest.approx(0.8, abs=0.02)
    tall = [row[: 12 * heartbeat.SAMPLES].max() for row in (slow, high)]
    assert tall[1] == pytest.approx(2 * tall[0], rel=0.15)


def test_a_record_without_beats_has_numbers_all_the_same(stage: Any) -> None:
    heartbeat = stage("heartbeat")
    values = heartbeat.heartbeat(np.zeros((12, 2500), np.float32), 250)
    assert not values.any()


def test_whatever_is_made_of_images_is_an_image_and_masks_are_flat(stage: Any) -> None:
    from medclip.imaging.intensity import is_flat

    made = stage("made_of_images")
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    images = [(40 + 80 * np.abs(np.sin(3 * x + n))).astype(np.uint8) for n in range(made.MOST_PANELS)]
    for kind, (make, _) in made.MADE.items():
        pixels = make(images, np.hypot(x, y) < 0.5, np.random.default_rng(1))
        assert pixels.dtype == np.uint8
        assert min(pixels.shape[:2]) >= 80
        if kind in ("binary mask", "flat mask"):
            assert is_flat(np.atleast_3d(pixels)), kind
        else:
            assert not is_flat(np.atleast_3d(pixels)), kind
