from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medclip.adapters.base import Source, single
from medclip.adapters.ct import WINDOW_HU, CtAdapter
from medclip.errors import MedclipError, Reason
from medclip.files.recognise.inspect import inspect_file
from medclip.sample import Kind, Sample
from medclip.settings import PixelPolicy, ReadPolicy, Settings
from tests.kits.files import ramp, write_image
from tests.kits.volumes import CT, positions_of, write_nifti, write_series

SETTINGS = Settings()


def _read(paths: list[Path], adapter: CtAdapter | None = None, settings: Settings = SETTINGS) -> Sample:
    facts = tuple(inspect_file(path, settings) for path in paths)
    return (adapter or CtAdapter()).read(Source(Kind.VOLUME, tuple(paths), facts), settings)


def _body(count: int = 40) -> np.ndarray:
    """Air around a body of 40 HU with a bone of 1200 HU, brighter from slice to slice."""
    voxels = np.full((count, 32, 40), -1000, np.int16)
    voxels[5:-5, 6:26, 6:34] = 40
    voxels[5:-5, 12:16, 18:22] = 1200
    voxels[5:-5, 20, 20] = np.arange(count - 10)
    return voxels


def test_a_series_gives_hu_and_slices_in_three_windows(tmp_path: Path) -> None:
    paths = write_series(tmp_path, _body(), positions_of(40), spacing=(0.5, 0.5))
    sample = _read(paths)
    assert sample.kind is Kind.VOLUME
    assert sample.volume is not None
    assert (sample.volume.unit, sample.volume.voxels.dtype) == ("HU", np.int16)
    np.testing.assert_array_equal(sample.volume.voxels, _body())
    assert len(sample.views) == 16
    view = sample.views[3]
    assert (view.pixels.shape, view.pixels.dtype, view.value_range) == ((32, 40, 3), np.float32, (0.0, 1.0))
    assert view.spacing_mm == pytest.approx((0.5, 0.5))
    for channel, (centre, width) in enumerate(WINDOW_HU.values()):
        for row, hu in ((0, -1000), (8, 40), (13, 1200)):
            expected = min(max((hu - centre) / width + 0.5, 0), 1)
            assert view.pixels[row, 19, channel] == pytest.approx(expected, abs=1e-6)
    steps = {step.name: step.detail for step in sample.provenance.steps}
    assert steps["slices"].startswith("16 of 40 axial: 5, 7,")
    assert "lung centre -600 width 1500 HU" in steps["window"]


def test_neighbours_are_channels_on_request(tmp_path: Path) -> None:
    paths = write_series(tmp_path, _body(14), positions_of(14), spacing=(0.5, 0.5))
    adapter = CtAdapter("2.5d")
    sample = _read(paths, adapter)
    assert sample.volume is not None
    assert len(sample.views) == 4
    centre, width = WINDOW_HU["soft_tissue"]
    hu = sample.volume.voxels[5:8].astype(np.float64).transpose(1, 2, 0)
    expected = np.clip((hu - centre) / width + 0.5, 0, 1)
    np.testing.assert_allclose(sample.views[1].pixels, expected, atol=1e-6)
    assert adapter.preprocessing_of(Kind.VOLUME) != CtAdapter().preprocessing_of(Kind.VOLUME)
    assert adapter.preprocessing_of(Kind.IMAGE) == CtAdapter().preprocessing_of(Kind.IMAGE)
    only = _read(write_series(tmp_path / "b", _body(14)[7:8], positions_of(1)), adapter)
    np.testing.assert_array_equal(only.views[0].pixels[..., 0], only.views[0].pixels[..., 2])
    with pytest.raises(MedclipError):
        CtAdapter("3d")  # type: ignore[arg-type]


def test_parameters_are_json_and_say_the_windows() -> None:
    parameters = dict(CtAdapter().parameters_of(Kind.VOLUME))
    assert json.loads(json.dumps(parameters)) == parameters
    assert parameters["window_hu"]["lung"] == [-600, 1500]
    assert "HU" in CtAdapter().describe(Kind.VOLUME)


def test_pixels_that_are_not_square_are_stretched(tmp_path: Path) -> None:
    view = _read(write_series(tmp_path, _body(12), positions_of(12), spacing=(1.0, 0.5))).views[0]
    assert view.pixels.shape == (64, 40, 3)
    assert view.spacing_mm == pytest.approx((0.5, 0.5))


def test_a_radiograph_that_calls_itself_ct_is_a_image_and_says_so(tmp_path: Path) -> None:
    (path,) = write_series(
        tmp_path, ramp(40, 50, np.int16, 3000)[None], [(0, 0, 0)], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
    )
    sample = _read([path])
    assert sample.volume is None
    assert sample.kind is Kind.IMAGE
    assert sample.views[0].pixels.shape[2] == 1
    assert any("not in HU" in step.detail for step in sample.provenance.steps)


def test_nifti_is_hu_only_where_its_values_can_be(tmp_path: Path) -> None:
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    body = _body().transpose(2, 1, 0).copy()
    body[0, 0, 0] = -1100
    sample = _read([write_nifti(tmp_path / "a.nii.gz", body, affine)])
    assert sample.volume is not None
    assert (sample.volume.unit, sample.volume.voxels.min()) == ("HU", -1024)
    assert sample.headers["value_range"] == (-1100, 1200)
    labels = _read([write_nifti(tmp_path / "b.nii.gz", (body > 0).astype(np.uint8), affine)])
    assert labels.volume is not None
    assert labels.volume.unit == "relative"
    assert any("not HU" in step.detail for step in labels.provenance.steps)


def test_an_exported_slice_is_one_grey_image(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", ramp(40, 50, np.uint16, 4000))
    sample = CtAdapter().read(single(path, inspect_file(path, SETTINGS)), SETTINGS)
    assert sample.kind is Kind.IMAGE
    assert (sample.views[0].pixels.shape[2], sample.views[0].pixels.dtype) == (1, np.float32)


def test_other_units_are_refused(tmp_path: Path) -> None:
    paths = write_series(tmp_path, _body(3), positions_of(3), Modality="MR", SOPClassUID=CT)
    with pytest.raises(MedclipError) as caught:
        _read(paths)
    assert caught.value.reason is Reason.NOT_SUPPORTED_YET


def test_a_gap_fails_by_default_and_a_policy_changes_the_hash(tmp_path: Path) -> None:
    keep = [0, 1, 2, 3, 5, 6, 7]
    paths = write_series(tmp_path, _body(14)[keep], [positions_of(14)[i] for i in keep])
    with pytest.raises(MedclipError) as caught:
        _read(paths)
    assert caught.value.reason is Reason.UNEVEN_SLICES
    sample = _read(paths, settings=Settings(policy=ReadPolicy(uneven_slices="resample")))
    assert sample.volume is not None
    assert sample.volume.voxels.shape[0] == 8
    assert sample.provenance.preprocessing != CtAdapter().preprocessing_of(Kind.VOLUME)


@pytest.mark.parametrize(
    "rescale",
    [
        {"RescaleSlope": None, "RescaleIntercept": None},
        {"RescaleSlope": 0},
        {"RescaleSlope": None},
        {"RescaleIntercept": None},
    ],
)
def test_stored_values_that_nothing_rescales_are_no_hu_and_are_still_shown(tmp_path: Path, rescale: dict) -> None:
    sample = _read(write_series(tmp_path, _body() + 1000, positions_of(40), spacing=(0.5, 0.5), **rescale))
    assert sample.volume is not None
    assert (sample.volume.unit, sample.volume.voxels.max()) == ("relative", 2200)
    assert any("values are not HU" in step.detail for step in sample.provenance.steps)
    assert not any("HU" in step.detail for step in sample.provenance.steps if step.name in ("window", "stretch"))
    view = sample.views[8].pixels
    np.testing.assert_array_equal(view[..., 0], view[..., 2])
    air, body, bone = view[0, 0, 0], view[8, 8, 0], view[13, 19, 0]
    assert (air, bone) == (0, 1)
    assert 0.2 < body < 0.8


def test_a_series_of_which_some_slices_have_no_rescale_is_refused(tmp_path: Path) -> None:
    paths = write_series(tmp_path, _body(8), positions_of(8))
    paths[4:5] = write_series(tmp_path / "b", _body(8)[4:5], positions_of(8)[4:5], RescaleSlope=None)
    with pytest.raises(MedclipError, match="7 of 8 to HU") as caught:
        _read(paths)
    assert caught.value.reason is Reason.CORRUPT


def test_the_window_that_is_asked_for_is_shown_and_never_another(tmp_path: Path) -> None:
    paths = write_series(tmp_path, _body(), positions_of(40), spacing=(0.5, 0.5))
    pixels = PixelPolicy(window=(400.0, 1000.0))
    view = _read(paths, settings=Settings(policy=ReadPolicy(pixels=pixels))).views[3]
    assert view.pixels[8, 8].tolist() == pytest.approx([0.14, 0.14, 0.14])
    none = _read(paths, settings=Settings(policy=ReadPolicy(pixels=PixelPolicy(window="none"))))
    assert any("percentiles" in step.detail for step in none.provenance.steps)
    for other in (1, "BONE"):
        with pytest.raises(MedclipError) as caught:
            _read(paths, settings=Settings(policy=ReadPolicy(pixels=PixelPolicy(window=other))))
        assert caught.value.reason is Reason.WRONG_USE


@pytest.mark.shared
def test_a_planning_radiograph_and_a_real_label_map_are_not_hu(shared: Path) -> None:
    root = shared / "data/field_dev"
    sample = _read([root / "phi/presidio/2_ORIGINAL.dcm"])
    assert sample.volume is None
    volume = _read([root / "nifti/totalseg/example_ct_sm.nii.gz"]).volume
    labels = _read([root / "nifti/totalseg/example_seg.nii.gz"]).volume
    assert volume is not None
    assert labels is not None
    assert (volume.unit, labels.unit) == ("HU", "relative")
    np.testing.assert_array_equal(volume.affine, labels.affine)
    # TotalSegmentator's map lies on the body: organs (1-24: spleen, kidneys, liver, ...) have the density of tissue.
    organs = (labels.voxels >= 1) & (labels.voxels <= 5)
    assert 20 < np.median(volume.voxels[organs]) < 200
