"""Real volumes: agreement with dcm2niix, highdicom, nibabel and TotalSegmentator's label map."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from pydicom import dcmread

from medclip.imaging.volume.read import read_nifti
from tests.kits.volumes import SETTINGS, read_paths

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def root(shared: Path) -> Path:
    return shared / "data/field_dev"


@pytest.mark.parametrize(
    ("folder", "files", "expected"),
    [
        ("dicom-mr/siemens-mosaic", ["epi_pe_ap-00001.dcm", "epi_pe_ap-00002.dcm"], "EPI_PE=AP_3.nii"),
        (
            "dicom-mr/siemens-xa10-enhanced",
            [f"6_{number}.dcm" for number in (1, 2, 3, 4)],
            "Siemens_REST1_w_SMS_PF7-8_6.nii",
        ),
    ],
)
def test_voxels_and_places_are_those_of_dcm2niix(root: Path, folder: str, files: list[str], expected: str) -> None:
    reference = read_nifti(root / folder / "expected" / expected, SETTINGS).volume
    for time, name in enumerate(files):
        volume = read_paths([root / folder / name]).volume
        np.testing.assert_array_equal(volume.voxels, reference.voxels[time])
        np.testing.assert_allclose(volume.affine, reference.affine, atol=2e-3)


def test_a_mosaic_without_its_image_header_is_read_by_the_protocol(root: Path, tmp_path: Path) -> None:
    stored = root / "dicom-mr/siemens-mosaic/epi_pe_ap-00001.dcm"
    dataset = dcmread(stored)
    del dataset[0x0029, 0x1010]
    dataset.save_as(tmp_path / "a.dcm")
    reference, read = read_paths([stored]).volume, read_paths([tmp_path / "a.dcm"]).volume
    np.testing.assert_array_equal(read.voxels, reference.voxels)
    np.testing.assert_allclose(read.affine, reference.affine, atol=1e-6)


def test_the_series_lies_where_the_label_map_made_from_it_does(root: Path) -> None:
    folder = root / "dicom-ct/totalseg-series"
    volume = read_paths(sorted(folder.glob("*.dcm"))).volume
    labels = read_nifti(folder / "expected/example_seg_dicom.nii.gz", SETTINGS).volume
    assert volume.voxels.shape == labels.voxels.shape
    np.testing.assert_allclose(volume.affine, labels.affine, atol=1e-3)
    for number, low, high in ((5, 40, 200), (52, 40, 500)):  # liver, aorta
        inside = labels.voxels == number
        if inside.any():
            assert low < np.median(volume.voxels[inside]) < high


def test_enhanced_objects_agree_with_highdicom(root: Path) -> None:
    highdicom = pytest.importorskip("highdicom")
    for name in (
        "dicom-mr/siemens-xa10-enhanced/6_1.dcm",
        "dicom-ct/enhanced-fragments/CT0012.fragmented_no_bot_jpeg_ls.80.dcm",
    ):
        ours = read_paths([root / name]).volume
        image = highdicom.imread(root / name)
        theirs = image.get_volume(apply_real_world_transform=False)
        affine = np.diag([-1.0, -1, 1, 1]) @ theirs.affine
        index = np.indices(theirs.spatial_shape).reshape(3, -1)
        back = np.linalg.solve(ours.affine[:3, :3], affine[:3, :3] @ index + affine[:3, 3:] - ours.affine[:3, 3:])
        np.testing.assert_array_equal(ours.voxels[tuple(np.rint(back).astype(int))], np.asarray(theirs.array).ravel())


@pytest.mark.parametrize(
    "name",
    [
        "nifti/nibabel/example4d.nii.gz",
        "nifti/nibabel/functional.nii",
        "nifti/niivue/shear.nii.gz",
        "nifti/niivue/FLAIR.nii.gz",
        "nifti/niivue/labels256.nii.gz",
        "nifti/nibabel/example_nifti2.nii.gz",
    ],
)
def test_nifti_voxels_are_nibabels_at_the_same_places(root: Path, name: str) -> None:
    volume = read_nifti(root / name, SETTINGS).volume
    image = nibabel.load(root / name)
    expected = np.asarray(image.dataobj)  # type: ignore[attr-defined]
    voxels = volume.voxels if volume.voxels.ndim == 4 else volume.voxels[None]
    expected = expected if expected.ndim == 4 else expected[..., None]
    index = np.random.default_rng(0).integers(0, voxels.shape[1:], (5000, 3)).T
    here = volume.affine[:3, :3] @ index + volume.affine[:3, 3:]
    affine = np.asarray(image.affine)  # type: ignore[attr-defined]
    back = tuple(np.rint(np.linalg.solve(affine[:3, :3], here - affine[:3, 3:])).astype(int))
    np.testing.assert_allclose(voxels[:, index[0], index[1], index[2]].T, expected[back], rtol=1e-6)


def test_objects_without_geometry_are_read_in_the_files_order(root: Path) -> None:
    reads = [read_paths([path]) for path in sorted((root / "dicom-mr/emri-small").glob("*.dcm"))]
    assert {read.volume.voxels.shape for read in reads} == {(10, 64, 64)}
    for read in reads:
        np.testing.assert_array_equal(read.volume.voxels, reads[0].volume.voxels)
        assert "position" in [step.name for step in read.steps]
        assert read.volume.spacing_mm[0] == pytest.approx(1.2)
