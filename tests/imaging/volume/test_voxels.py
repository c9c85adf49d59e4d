from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from medclip.adapters.base import source_of
from medclip.adapters.registry import read_unit
from medclip.errors import MedclipError, Reason
from medclip.imaging.volume.voxels import held, voxels_of
from medclip.sample import Kind, Modality, Sample
from medclip.settings import Settings
from tests.kits.files import write_dicom
from tests.kits.loops import sector, write_cine
from tests.kits.volume_models import SPACING_MM, body, write_ct
from tests.kits.volumes import write_nifti


def _sample(path: Path, modality: Modality) -> Sample:
    return read_unit(source_of(path, Settings()), modality, Settings())


def test_a_series_keeps_hu_spacing_and_plane(tmp_path: Path) -> None:
    voxels = voxels_of(_sample(write_ct(tmp_path / "ct"), Modality.CT))
    assert (voxels.kind, voxels.unit, voxels.plane, voxels.frame_ms) == (Kind.VOLUME, "HU", "axial", None)
    np.testing.assert_allclose(voxels.spacing_mm, SPACING_MM)  # type: ignore[arg-type]
    np.testing.assert_array_equal(voxels.values, np.maximum(body(), -1024))
    assert voxels.values.dtype == np.int16
    assert repr(voxels) == "Voxels(volume 12 x 40 x 60 int16, 2 x 0.8 x 0.5 mm, HU, axial)"


def test_a_loop_keeps_its_frames_and_how_long_one_lasts(tmp_path: Path) -> None:
    path = write_cine(tmp_path / "a.dcm", sector(6), FrameTime=33.3)
    sample = _sample(path, Modality.ULTRASOUND)
    voxels = voxels_of(sample)
    assert voxels.kind is Kind.CINE
    assert voxels.frame_ms == pytest.approx(33.3)
    assert voxels.plane is None
    assert voxels.values is sample.frames
    assert voxels.values.dtype == np.uint8


def test_of_a_volume_in_time_one_frame_stands_for_all(tmp_path: Path) -> None:
    voxels = np.stack([np.full((22, 24, 9), 100 * n, np.int16) + np.arange(9, dtype=np.int16) for n in range(5)], -1)
    path = write_nifti(tmp_path / "fmri.nii", voxels, np.diag([2.0, 2, 5, 1]))
    still = voxels_of(_sample(path, Modality.MRI))
    assert still.values.shape == (9, 24, 22)
    assert still.values.min() == 200


@pytest.mark.parametrize("analyze", [False, True])
def test_a_file_that_does_not_say_how_it_lies_is_refused(tmp_path: Path, analyze: bool) -> None:
    """It is shown to people with a note; a model would be shown left for right."""
    stored = body().transpose(2, 1, 0)
    if analyze:
        path = tmp_path / "a.img"
        nibabel.AnalyzeImage(stored, None).to_filename(path)
        path = path.with_suffix(".hdr")
    else:
        path = tmp_path / "a.nii"
        nibabel.Nifti1Image(stored, None).to_filename(path)
    sample = _sample(path, Modality.CT)
    assert sample.views
    with pytest.raises(MedclipError, match="does not say how its slices lie in the patient") as caught:
        voxels_of(sample)
    assert caught.value.reason is Reason.OTHER_ORIENTATION


def test_a_series_without_pixel_spacing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="does not say how large its pixels are") as caught:
        voxels_of(_sample(write_ct(tmp_path / "ct", PixelSpacing=None), Modality.CT))
    assert caught.value.reason is Reason.NO_SCALE


def test_an_image_is_refused_by_its_kind(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.random.default_rng(0).integers(0, 4000, (64, 64)).astype(np.uint16))
    with pytest.raises(MedclipError, match="kind image") as caught:
        voxels_of(_sample(path, Modality.XRAY))
    assert caught.value.reason is Reason.OTHER_INPUT


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array([0, 255], np.uint8), np.uint8),
        (np.array([-1024, 3071], np.float64), np.int16),
        (np.array([0, 40_000], np.uint16), np.float32),
        (np.array([0, 30_000], np.uint16), np.int16),
        (np.array([0.5, 1.5], np.float32), np.float32),
    ],
)
def test_values_are_held_in_the_smallest_of_three_types(values: np.ndarray, dtype: type) -> None:
    assert held(values).dtype == dtype
    np.testing.assert_array_equal(held(values), values)
