from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medclip.adapters.base import Source, single
from medclip.adapters.mri import MriAdapter
from medclip.errors import MedclipError, Reason
from medclip.files.recognise.inspect import inspect_file
from medclip.sample import Kind, Sample
from medclip.settings import Settings
from tests.kits.files import ramp, write_image
from tests.kits.volumes import MR, positions_of, write_enhanced, write_nifti, write_series

SETTINGS = Settings()


def _read(paths: list[Path]) -> Sample:
    facts = tuple(inspect_file(path, SETTINGS) for path in paths)
    return MriAdapter().read(Source(Kind.VOLUME, tuple(paths), facts), SETTINGS)


def _head(count: int = 12) -> np.ndarray:
    """A head whose slices grow brighter, noise of 3 around it, and one hot voxel."""
    voxels = np.full((count, 32, 32), 3, np.int16)
    voxels[:, 6:26, 6:26] = 300 + 50 * np.arange(count)[:, None, None]
    voxels[0, 10, 10] = 20000
    return voxels


def _series(folder: Path, voxels: np.ndarray, **elements: object) -> list[Path]:
    given = {"Modality": "MR", "SOPClassUID": MR, "ScanningSequence": "SE", "EchoTime": 80.0, **elements}
    return write_series(folder, voxels, positions_of(len(voxels)), spacing=(0.5, 0.5), **given)


def test_the_hash_of_exported_slices_is_what_it_was() -> None:
    adapter = MriAdapter()
    assert adapter.preprocessing == "39aec570c1dfe13f"
    assert adapter.preprocessing_of(Kind.VOLUME) != adapter.preprocessing
    assert json.loads(json.dumps(dict(adapter.parameters_of(Kind.VOLUME))))["percentiles"] == [0.5, 99.5]


def test_a_series_is_stretched_as_one(tmp_path: Path) -> None:
    sample = _read(_series(tmp_path, _head()))
    assert sample.kind is Kind.VOLUME
    assert sample.volume is not None
    assert sample.volume.unit == "relative"
    means = [float(view.pixels[12:20, 12:20].mean()) for view in sample.views]
    assert len(means) == 12
    assert means == sorted(means)  # slices can be compared: each was not stretched on its own
    assert means[-1] > means[1] + 0.5
    assert sample.views[0].pixels.dtype == np.float32
    assert sample.views[0].pixels.shape == (32, 32, 1)
    assert sample.views[5].pixels[0, 0, 0] == 0  # background is black
    assert (sample.headers["sequence"], sample.headers["echo_time_ms"]) == ("SE", 80.0)
    assert any(step.name == "stretch" and "of the series" in step.detail for step in sample.provenance.steps)


def test_of_a_series_in_time_the_middle_frame_is_shown(tmp_path: Path) -> None:
    frames = np.stack([_head().transpose(2, 1, 0) // (time + 1) for time in range(5)], axis=-1)
    sample = _read([write_nifti(tmp_path / "a.nii.gz", frames, np.diag([1.0, 1.0, 2.0, 1.0]))])
    assert sample.volume is not None
    assert sample.volume.voxels.shape[0] == 5
    assert any(step.name == "frame" and step.detail.startswith("2 of 5") for step in sample.provenance.steps)
    shown = np.stack([view.pixels[16, 16, 0] for view in sample.views])
    middle = sample.volume.voxels[2, :, 16, 16].astype(float)
    first = sample.volume.voxels[0, :, 16, 16].astype(float)
    (stretch,) = (step.detail for step in sample.provenance.steps if step.name == "stretch")
    low, high = (float(value) for value in stretch.split(": ")[1].split(" to "))
    assert shown[5] == pytest.approx((middle[5] - low) / (high - low), abs=1e-3)
    assert shown[5] != pytest.approx((first[5] - low) / (high - low), abs=0.1)


def test_of_diffusion_the_lowest_b_value_is_shown(tmp_path: Path) -> None:
    voxels = _head(4)
    stored = np.concatenate([voxels // 8, voxels, voxels // 4]).reshape(3, 4, 32, 32).swapaxes(0, 1).reshape(12, 32, 32)
    groups = [
        {
            "PlanePositionSequence": {"ImagePositionPatient": list(position)},
            "FrameContentSequence": {"TemporalPositionIndex": time + 1},
            "MRDiffusionSequence": {"DiffusionBValue": (1000.0, 0.0, 500.0)[time]},
        }
        for position in positions_of(4)
        for time in range(3)
    ]
    shared = {
        "PixelMeasuresSequence": {"PixelSpacing": [1, 1], "SliceThickness": 2.0},
        "PlaneOrientationSequence": {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
    }
    sample = _read([write_enhanced(tmp_path / "a.dcm", stored, groups, shared)])
    assert sample.headers["b_values"] == (1000, 0, 500)
    assert any("1 of 3, the lowest b-value, 0" in step.detail for step in sample.provenance.steps)
    assert float(sample.views[-1].pixels[12:20, 12:20].mean()) > 0.9


def test_a_volume_without_contrast_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MedclipError) as caught:
        _read(_series(tmp_path, np.full((4, 20, 20), 7, np.int16)))
    assert caught.value.reason is Reason.CONSTANT_IMAGE


def test_tiny_slices_are_not_judged(tmp_path: Path) -> None:
    with pytest.raises(MedclipError) as caught:
        _read([write_nifti(tmp_path / "a.nii", ramp(8, 64).reshape(8, 8, 8), np.eye(4))])
    assert caught.value.reason is Reason.TOO_SMALL


def test_an_exported_slice_is_one_grey_image(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", ramp(40, 50))
    sample = MriAdapter().read(single(path, inspect_file(path, SETTINGS)), SETTINGS)
    assert (sample.kind, sample.volume, len(sample.views)) == (Kind.IMAGE, None, 1)
