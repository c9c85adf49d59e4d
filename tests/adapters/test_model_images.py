"""What a model that takes images is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from examples.make_phantoms import ecg_record
from medclip.adapters.base import source_of
from medclip.adapters.model_images import DRAWN, images_of
from medclip.adapters.registry import preprocessing_of, read_unit
from medclip.sample import Modality
from medclip.settings import Settings


def test_an_ecg_is_shown_in_four_cuttings_of_three_leads_and_the_rhythm_strip(tmp_path: Path):
    ecg_record(tmp_path / "ecg")
    sample = read_unit(source_of(tmp_path / "ecg", Settings()), Modality.ECG, Settings())
    views = images_of(sample)
    assert [v.pixels.shape for v in views] == [(472, 246, 3)] * 4 + [(142, 1004, 3)]
    for view in views:
        ink = (view.pixels.max(axis=2) < 100).mean()
        assert 0.002 < ink < 0.2  # traces on paper, in every cutting
    assert len({view.pixels.tobytes() for view in views}) == 5


@pytest.mark.parametrize(
    ("target", "value"),
    [
        ("medclip.adapters.model_images.ECG_DPI", 120),
        ("medclip.adapters.model_images._RHYTHM_MM", (18.0, 147.0, 255.0, 30.0)),
        ("medclip.imaging.ecg.sheet.draw_sheet.SHEET_VERSION", 99),
    ],
)
def test_another_drawing_or_cutting_has_another_hash(target: str, value: object, monkeypatch: pytest.MonkeyPatch):
    before = preprocessing_of(DRAWN)
    assert before == preprocessing_of(DRAWN) != preprocessing_of("ecg:signal")
    monkeypatch.setattr(target, value)
    assert preprocessing_of(DRAWN) != before


def test_a_image_is_shown_as_its_adapter_made_it(tmp_path: Path):
    from PIL import Image

    path = tmp_path / "eye.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)).save(path)
    sample = read_unit(source_of(path, Settings()), Modality.DERMATOLOGY, Settings())
    assert images_of(sample) is sample.views
