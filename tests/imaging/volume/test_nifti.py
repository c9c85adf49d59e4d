from __future__ import annotations

import gzip
import itertools
import struct
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import obliquity

from medclip.errors import MedclipError, Reason
from medclip.files.recognise.inspect import inspect_file
from medclip.files.recognise.sniff import Format
from medclip.imaging.volume.nifti import read_minc
from medclip.imaging.volume.read import read_nifti
from medclip.imaging.volume.slice_geometry import arrange, axis_codes, closest_axes, oblique_deg
from medclip.sample import Volume
from tests.kits.codestreams import half_zeroed
from tests.kits.volumes import SETTINGS, limited, write_nifti

SHAPE = (18, 20, 22)
AFFINE = np.array([[2.0, 0, 0, -20], [0, 2.5, 0, -30], [0, 0, 3.5, 40], [0, 0, 0, 1]])
SIGNED = [
    np.diag([*signs, 1.0])[:, [*axes, 3]]
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]


def _voxels(shape: tuple[int, ...] = SHAPE, dtype: Any = np.int16) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def _axial(volume: Volume) -> np.ndarray:
    return arrange(volume.voxels, volume.affine, "axial")[0]


def _same_places(stored: np.ndarray, affine: np.ndarray, volume: Volume) -> None:
    """Every voxel of the volume is at the place where the stored one of the same value is."""
    index = np.indices(volume.voxels.shape).reshape(3, -1)
    here = volume.affine[:3, :3] @ index + volume.affine[:3, 3:]
    back = np.rint(np.linalg.solve(affine[:3, :3], here - affine[:3, 3:])).astype(int)
    np.testing.assert_array_equal(stored[tuple(back)], volume.voxels.ravel())
    np.testing.assert_allclose(affine[:3, :3] @ back + affine[:3, 3:], here, atol=1e-3)


def _reason(path: Path, **options: Any) -> Reason:
    with pytest.raises(MedclipError) as caught:
        read_nifti(path, options.get("settings", SETTINGS))
    assert str(path.parent) not in caught.value.message
    return caught.value.reason


@pytest.mark.parametrize("turn", SIGNED, ids=[axis_codes(turn) for turn in SIGNED])
def test_every_order_and_direction_of_axes_is_shown_alike(tmp_path: Path, turn: np.ndarray) -> None:
    affine = turn @ np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -20, -30, 40
    stored = _voxels()
    read = read_nifti(write_nifti(tmp_path / "a.nii", stored, affine), SETTINGS)
    assert read.headers["stored_orientation"] == "".join(nibabel.aff2axcodes(affine))
    slices, rows, columns = read.volume.affine[:3, :3].T / 2
    np.testing.assert_allclose([slices, rows, columns], [[0, 0, 1], [0, -1, 0], [-1, 0, 0]], atol=1e-6)
    _same_places(stored, affine, read.volume)


@settings(max_examples=150)
@given(st.sampled_from(SIGNED), st.lists(st.floats(-0.3, 0.3), min_size=9, max_size=9), st.sampled_from([1, 1.3, 6]))
def test_layout_keeps_every_voxels_place_whatever_the_affine(
    turn: np.ndarray, noise: list[float], thick: float
) -> None:
    affine = turn.copy()
    affine[:3, :3] += np.reshape(noise, (3, 3))  # rotation, scaling and shear
    affine[:3, 2] *= thick
    affine[:3, 3] = 5, -7, 11
    stored = _voxels((3, 4, 5))
    for plane in ("axial", "coronal", "sagittal"):
        voxels, moved, name = arrange(stored, affine, plane)
        _same_places(stored, affine, Volume(voxels, moved, "relative", name))
        again, moved_again, _ = arrange(voxels, moved, "axial")
        straight, expected, _ = arrange(stored, affine, "axial")
        np.testing.assert_array_equal(again, straight)
        np.testing.assert_allclose(moved_again, expected, atol=1e-9)


@given(st.sampled_from(SIGNED), st.lists(st.floats(-0.25, 0.25), min_size=9, max_size=9))
def test_axes_are_named_as_nibabel_names_them(turn: np.ndarray, noise: list[float]) -> None:
    affine = turn.copy()
    affine[:3, :3] += np.reshape(noise, (3, 3))
    assert axis_codes(affine) == "".join(nibabel.aff2axcodes(affine))
    assert sorted(world for world, _ in closest_axes(affine)) == [0, 1, 2]


@given(st.floats(-40, 40), st.floats(-40, 40))
def test_the_angle_of_an_oblique_volume_is_nibabels(first: float, second: float) -> None:
    a, b = np.radians(first), np.radians(second)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]) @ np.array(
        [[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]]
    )
    # nibabel looks at the rows of the rotation, we at the axes of the array: the largest angle is nearly the same.
    assert oblique_deg(affine) == pytest.approx(float(np.degrees(obliquity(affine).max())), abs=0.02)


def test_slices_lie_across_the_clearly_thickest_axis(tmp_path: Path) -> None:
    for spacing, plane in (
        ((1, 1, 3), "axial"),
        ((1, 3, 1), "coronal"),
        ((3, 1, 1), "sagittal"),
        ((1.1, 1, 1), "axial"),
    ):
        path = write_nifti(tmp_path / "a.nii", _voxels(), np.diag([*spacing, 1.0]))
        assert read_nifti(path, SETTINGS).volume.plane == plane


def test_a_plane_far_from_all_names_is_called_oblique(tmp_path: Path) -> None:
    c = np.cos(np.radians(40))
    affine = np.array([[1, 0, 0, 0], [0, c, -np.sqrt(1 - c * c), 0], [0, np.sqrt(1 - c * c), c, 0], [0, 0, 0, 1.0]])
    read = read_nifti(write_nifti(tmp_path / "a.nii", _voxels(), affine), SETTINGS)
    assert (read.volume.plane, read.headers["oblique_deg"]) == ("oblique", 40.0)
    _same_places(_voxels(), affine, read.volume)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4", "f8", ">i2", ">f4"])
def test_values_and_types_are_kept(tmp_path: Path, kind: Any, name: str, dtype: str) -> None:
    stored = (_voxels() % 250).astype(dtype)
    path = write_nifti(tmp_path / name, stored, AFFINE, kind)
    read = read_nifti(path, SETTINGS)
    expected = np.dtype("f4") if dtype.endswith(("f8", "f4")) else np.dtype(dtype).newbyteorder("=")
    assert read.volume.voxels.dtype == expected
    np.testing.assert_array_equal(_axial(read.volume), arrange(stored, AFFINE, "axial")[0])
    assert read.headers["stored_shape"] == SHAPE
    assert read.headers["stored_spacing"] == (2.0, 2.5, 3.5)
    assert read.headers["value_range"] == (0, 249)


@pytest.mark.parametrize(
    ("dtype", "slope", "inter", "expected"),
    [
        ("u1", 7.25, -1024, "f4"),
        ("i2", 1, -1024, "i2"),
        ("u2", 1, -1024, "i4"),
        ("i2", -1, 7, "i2"),
        ("u1", 200, 0, "u2"),
        ("i2", 0.5, 3, "f4"),
        ("f4", 2, 1, "f4"),
    ],
)
def test_scaling_is_applied(tmp_path: Path, dtype: str, slope: float, inter: float, expected: str) -> None:
    stored = (_voxels(dtype=np.int64) * 7 % (60000 if dtype == "u2" else 30000)).astype(dtype)
    image = nibabel.Nifti1Image(stored, AFFINE)
    image.header.set_slope_inter(slope, inter)
    path = tmp_path / "a.nii"
    with path.open("wb") as file:  # nibabel's own writer would choose another scaling
        image.header["vox_offset"] = 352
        image.header["magic"] = b"n+1"
        image.header.set_data_dtype(stored.dtype)
        file.write(image.header.binaryblock + b"\0" * 4 + stored.tobytes(order="F"))
    read = read_nifti(path, SETTINGS)
    assert read.volume.voxels.dtype == expected
    reference = arrange(nibabel.Nifti1Image.from_filename(path).get_fdata(), AFFINE, "axial")[0]
    np.testing.assert_allclose(_axial(read.volume), reference, rtol=1e-6, atol=1e-4)


def test_time_is_the_first_axis(tmp_path: Path) -> None:
    stored = _voxels((*SHAPE, 3))
    image = nibabel.Nifti1Image(stored, AFFINE)
    image.header.set_zooms((2.0, 2.5, 3.5, 1.5))
    nibabel.save(image, tmp_path / "a.nii.gz")
    read = read_nifti(tmp_path / "a.nii.gz", SETTINGS)
    assert read.volume.voxels.shape[0] == 3
    assert read.headers["stored_spacing"] == (2.0, 2.5, 3.5, 1.5)
    for time in range(3):
        _same_places(stored[..., time], AFFINE, Volume(read.volume.voxels[time], read.volume.affine, "", ""))


def test_pairs_and_analyze_are_read_and_need_their_img(tmp_path: Path) -> None:
    stored = _voxels()
    for kind, name in ((nibabel.Nifti1Pair, "pair"), (nibabel.AnalyzeImage, "old"), (nibabel.Spm2AnalyzeImage, "spm")):
        header = write_nifti(tmp_path / f"{name}.hdr", stored, np.diag([2.0, 2.0, 2.0, 1.0]), kind)
        header.with_suffix(".mat").unlink(missing_ok=True)  # SPM's own affine; nothing of the sort is loaded
        read = read_nifti(header, SETTINGS)
        reference = nibabel.load(header)
        _same_places(stored, np.asarray(reference.affine), read.volume)  # type: ignore[attr-defined]
        assert any("left from right" in step.detail for step in read.steps) == (name != "pair")
        moved = header.with_suffix(".img").rename(tmp_path / "voxels.bin")
        assert _reason(header) is Reason.MISSING_FILE
        np.testing.assert_array_equal(read_nifti(header, SETTINGS, image=moved).volume.voxels, read.volume.voxels)


def test_no_orientation_is_said(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", _voxels(), None)  # type: ignore[arg-type]
    raw = bytearray(path.read_bytes())
    raw[252:256] = b"\0" * 4  # qform_code and sform_code
    path.write_bytes(raw)
    read = read_nifti(path, SETTINGS)
    assert read.headers["stored_orientation"] == "LAS"
    assert any("no orientation" in step.detail for step in read.steps)


def test_holes_become_the_lowest_value(tmp_path: Path) -> None:
    stored = _voxels(dtype=np.float32) - 5
    stored[3, 4, 5], stored[0, 0, 0] = np.nan, np.inf
    read = read_nifti(write_nifti(tmp_path / "a.nii", stored, AFFINE), SETTINGS)
    assert np.isfinite(read.volume.voxels).all()
    assert read.headers["value_range"] == (-4, stored.size - 6)
    assert any(step.name == "fill" and step.detail.startswith("2 voxels") for step in read.steps)
    path = write_nifti(tmp_path / "b.nii", np.full(SHAPE, np.nan, np.float32), AFFINE)
    assert _reason(path) is Reason.NON_FINITE


def test_damaged_files_have_one_reason(tmp_path: Path) -> None:
    whole = write_nifti(tmp_path / "a.nii", _voxels(), AFFINE).read_bytes()
    path = tmp_path / "b.nii"
    for content, reason in (
        (b"", Reason.EMPTY_FILE),
        (whole[:200], Reason.TRUNCATED),
        (whole[:2000], Reason.TRUNCATED),
        (gzip.compress(whole)[:900], Reason.TRUNCATED),
        (gzip.compress(whole[:-10]), Reason.TRUNCATED),
        (gzip.compress(whole)[:-4], Reason.TRUNCATED),  # all voxels, and no check sum
        (half_zeroed(gzip.compress(whole)), Reason.TRUNCATED),
        (whole[:40] + b"\xff" * 16 + whole[56:], Reason.CORRUPT),
        (whole[:70] + b"\x99\x99" + whole[72:], Reason.CORRUPT),
        (whole[:108] + struct.pack("<f", np.nan) + whole[112:], Reason.CORRUPT),
        (whole[:108] + struct.pack("<f", 1e12) + whole[112:], Reason.CORRUPT),
        (whole[:280] + b"\0" * 48 + whole[328:], Reason.CORRUPT),
    ):
        path.write_bytes(content)
        assert _reason(path) is reason, content[:60]


def test_a_bomb_and_a_lying_header_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    header = nibabel.Nifti1Image(_voxels(), AFFINE).header
    header["dim"] = [3, 2000, 2000, 2000, 1, 1, 1, 1]
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(header.binaryblock + b"\0" * 10_000_000))
    assert _reason(path) is Reason.TOO_LARGE
    header["dim"] = [3, 1000, 1000, 500, 1, 1, 1, 1]  # within the limit, but more than the file can unpack to
    path.write_bytes(gzip.compress(header.binaryblock + b"\0" * 1_000_000))
    assert _reason(path) is Reason.TRUNCATED
    assert _reason(write_nifti(tmp_path / "b.nii", _voxels(), AFFINE), settings=limited(1000)) is Reason.TOO_LARGE


def test_what_is_no_image_is_refused_in_words(tmp_path: Path) -> None:
    colour = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert _reason(write_nifti(tmp_path / "a.nii", colour, AFFINE)) is Reason.NOT_SUPPORTED_YET
    assert _reason(write_nifti(tmp_path / "b.nii", _voxels(dtype="c8"), AFFINE)) is Reason.NOT_SUPPORTED_YET
    field = _voxels((4, 4, 4, 1, 3), "f4")
    assert _reason(write_nifti(tmp_path / "c.nii", field, AFFINE)) is Reason.NOT_SUPPORTED_YET


def _minc(path: Path, stored: np.ndarray, times: int = 0) -> Path:
    """Write MINC 1: a netCDF file with axes named by direction, one of them running backwards."""
    from scipy.io import netcdf_file

    with netcdf_file(path, "w") as file:
        names = ("time",) * bool(times) + ("zspace", "yspace", "xspace")
        for name, length in zip(names, stored.shape, strict=True):
            file.createDimension(name, length)
            axis = file.createVariable(name, "i", ())
            axis.spacing = b"regular__"
            axis.step, axis.start = {"zspace": (4.0, -9.0), "yspace": (-2.5, 30.0)}.get(name, (2.0, -20.0))
        image = file.createVariable("image", "h", names)
        image.valid_range, image.signtype = np.array([0.0, 10_000.0]), b"signed__"
        image[:] = stored
        for name, value in (("image-min", 0.0), ("image-max", 5_000.0)):
            file.createVariable(name, "d", ())[...] = value
    return path


@pytest.mark.parametrize("times", [0, 2])
def test_minc_is_read_with_its_scaling_and_directions(tmp_path: Path, times: int) -> None:
    stored = _voxels((times, *SHAPE) if times else SHAPE) % 9973
    read = read_minc(_minc(tmp_path / "a.mnc", stored, times), SETTINGS)
    image: Any = nibabel.load(tmp_path / "a.mnc")
    frames = read.volume.voxels if times else read.volume.voxels[None]
    for frame, expected in zip(frames, stored if times else stored[None], strict=True):
        np.testing.assert_allclose(frame.max(), expected.max() / 2, rtol=1e-4)
        _same_places(expected, image.affine, Volume(np.rint(frame * 2).astype(int), read.volume.affine, "", ""))
    assert read.headers["stored_orientation"] == "SPR"
    assert read.headers["stored_shape"] == ((times, *SHAPE) if times else SHAPE)


def test_damaged_or_large_minc_has_one_reason(tmp_path: Path) -> None:
    path = _minc(tmp_path / "a.mnc", _voxels())
    raw = path.read_bytes()
    for content, settings_, reason in (
        (raw[:5000], SETTINGS, Reason.CORRUPT),
        (raw[:30], SETTINGS, Reason.CORRUPT),
        (raw, limited(1000), Reason.TOO_LARGE),
    ):
        path.write_bytes(content)
        with pytest.raises(MedclipError) as caught:
            read_minc(path, settings_)
        assert caught.value.reason is reason


@given(st.integers(0, 351), st.binary(min_size=1, max_size=8))
@settings(max_examples=200)
def test_any_header_ends_in_a_volume_or_one_reason(at: int, noise: bytes) -> None:
    import tempfile

    image = nibabel.Nifti1Image(_voxels((5, 6, 7)), AFFINE)
    raw = bytearray(image.to_bytes())
    raw[at : at + len(noise)] = noise
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.nii"
        path.write_bytes(raw)
        try:
            read = read_nifti(path, limited(10_000_000))
        except MedclipError:
            return
        assert np.isfinite(read.volume.voxels).all()
        assert np.isfinite(read.volume.affine).all()


@pytest.mark.parametrize("kind", [nibabel.AnalyzeImage, nibabel.Spm99AnalyzeImage])
def test_analyze_is_known_without_the_letter_that_many_writers_leave_out(tmp_path: Path, kind: Any) -> None:
    nibabel.save(kind(_voxels(), np.diag([2.0, 2.5, 3.5, 1.0])), tmp_path / "a.img")
    assert inspect_file(tmp_path / "a.hdr", SETTINGS).format is Format.NIFTI
    assert read_nifti(tmp_path / "a.hdr", SETTINGS).volume.voxels.shape == SHAPE[::-1]


def test_orientations_that_contradict_each_other_are_noted(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(_voxels(), AFFINE)
    image.set_sform(AFFINE, 1)
    image.set_qform(AFFINE, 1)
    nibabel.save(image, tmp_path / "same.nii")
    image.set_qform(AFFINE @ np.diag([-1.0, 1, 1, 1]), 1)
    nibabel.save(image, tmp_path / "other.nii")
    said = [[step.detail for step in read_nifti(tmp_path / name, SETTINGS).steps] for name in ("same.nii", "other.nii")]
    assert not any("qform" in detail for detail in said[0])
    assert any("sform says RAS and qform LAS" in detail for detail in said[1])


@pytest.mark.parametrize(("unit", "mm"), [("meter", 1000.0), ("mm", 1.0), ("micron", 0.001), ("unknown", 1.0)])
def test_places_and_spacing_are_in_mm_whatever_unit_the_header_has(tmp_path: Path, unit: str, mm: float) -> None:
    affine = np.diag([1 / mm, 1 / mm, 1 / mm, 1.0]) @ AFFINE
    image = nibabel.Nifti1Image(_voxels(), affine)
    image.header.set_xyzt_units(unit, "sec")
    nibabel.save(image, tmp_path / "a.nii")
    read = read_nifti(tmp_path / "a.nii", SETTINGS)
    _same_places(_voxels(), AFFINE, read.volume)
    assert read.headers["stored_spacing"] == pytest.approx((2.0, 2.5, 3.5))
