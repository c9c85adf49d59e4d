from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.adapters.oct import OctAdapter
from medclip.errors import MedclipError, Reason
from medclip.imaging.crop.dark_borders import find_plain_borders
from medclip.sample import Kind, Modality
from tests.kits.files import ramp, write_dicom, write_image
from tests.kits.loops import read, write_cine

ADAPTER = OctAdapter()
OPT = "1.2.840.10008.5.1.4.1.1.77.1.5.4"


def _scan(count: int = 1) -> np.ndarray:
    """B-scans [F, 200, 300]: noise with a bright layer."""
    frames = np.random.default_rng(0).integers(10, 60, (count, 200, 300)).astype(np.uint8)
    for number in range(count):
        frames[number, 80 + 2 * number : 110 + 2 * number] = 180
    return frames


def test_white_and_black_margins_are_trimmed(tmp_path: Path) -> None:
    pixels = np.full((260, 340), 255, np.uint8)
    pixels[20:220, 10:310] = _scan()[0]
    pixels[:, 320:] = 0
    sample = read(ADAPTER, write_image(tmp_path / "a.png", pixels))
    np.testing.assert_array_equal(sample.views[0].pixels[..., 0], _scan()[0])
    assert [step.name for step in sample.provenance.steps] == ["crop border"]
    assert sample.modality is Modality.OCT


def test_a_white_wedge_is_no_margin(tmp_path: Path) -> None:
    pixels = _scan()[0]
    pixels[np.add.outer(np.arange(200), np.arange(300)) < 150] = 255
    assert read(ADAPTER, write_image(tmp_path / "a.png", pixels)).views[0].pixels.shape == (200, 300, 1)


def test_a_colour_export_becomes_grey(tmp_path: Path) -> None:
    sample = read(ADAPTER, write_image(tmp_path / "a.png", np.repeat(_scan()[0][..., None], 3, axis=2)))
    np.testing.assert_array_equal(sample.views[0].pixels[..., 0], _scan()[0])


def test_frames_of_a_volume_are_b_scans_in_order(tmp_path: Path) -> None:
    scans = _scan(32)
    scans = np.pad(scans, ((0, 0), (10, 0), (0, 0)))
    sample = read(ADAPTER, write_cine(tmp_path / "a", scans, Modality="OPT", SOPClassUID=OPT))
    assert sample.kind is Kind.CINE
    assert sample.frames is not None
    np.testing.assert_array_equal(sample.frames[..., 0], scans[:, 10:])
    assert len(sample.views) == 16
    assert sample.headers["frames_are"] == "B-scans"
    assert "B-scans" in sample.provenance.steps[-1].detail
    assert "B-scan" in ADAPTER.describe(Kind.CINE)


def test_deep_b_scans_come_out_in_eight_bits(tmp_path: Path) -> None:
    scans = _scan(3).astype(np.uint16) * 100
    sample = read(ADAPTER, write_cine(tmp_path / "a", scans, Modality="OPT", SOPClassUID=OPT))
    assert sample.frames is not None
    assert sample.frames.dtype == np.uint8
    assert sample.frames.max() > 240


def test_a_radiograph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MedclipError) as caught:
        read(ADAPTER, write_dicom(tmp_path / "a", ramp(), Modality="DX"))
    assert caught.value.reason is Reason.NOT_SUPPORTED_YET


@given(st.lists(st.integers(0, 60), min_size=4, max_size=4), st.sampled_from([0, 255]), st.integers(1, 3))
def test_margins_of_any_width_are_found_exactly(margins: list[int], plain: int, count: int) -> None:
    top, bottom, left, right = margins
    scans = np.pad(_scan(count), ((0, 0), (top, bottom), (left, right)), constant_values=plain)[..., None]
    box = find_plain_borders(scans)
    expected = (top, left, top + 200, left + 300)
    assert box == (expected if any(margins) else None)
