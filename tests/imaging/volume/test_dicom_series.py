from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread

from medclip.errors import MedclipError, Reason
from medclip.imaging.volume import dicom as volume_frames
from medclip.imaging.volume.slice_geometry import Place, stack_of
from tests.kits.volumes import (
    AXIAL,
    BRIGHT,
    ENHANCED_CT,
    RESAMPLE,
    SHAPE,
    bright_lps,
    brightest_ras,
    limited,
    lps,
    positions_of,
    read_paths,
    scene,
    write_enhanced,
    write_series,
)

CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
C, S = np.cos(np.radians(20)), np.sin(np.radians(20))
OBLIQUE = (1.0, 0.0, 0.0, 0.0, float(C), float(S))
SPACING = (0.8, 0.5)


def _directions(affine: np.ndarray) -> str:
    """World axis that slices, rows and columns run towards."""
    return "".join(
        ("RAS" if column[axis] > 0 else "LPI")[axis] for column in affine[:3, :3].T for axis in [abs(column).argmax()]
    )


@pytest.mark.parametrize(
    ("orientation", "plane", "shown"),
    [
        (AXIAL, "axial", "SPL"),
        ((-1.0, 0, 0, 0, -1, 0), "axial", "SPL"),
        ((1.0, 0, 0, 0, -1, 0), "axial", "SPL"),
        ((0, 1.0, 0, 1, 0, 0), "axial", "SPL"),
        (CORONAL, "coronal", "PIL"),
        ((1.0, 0, 0, 0, 0, 1), "coronal", "PIL"),
        (SAGITTAL, "sagittal", "RIP"),
        ((0, -1.0, 0, 0, 0, -1), "sagittal", "RIP"),
        (OBLIQUE, "axial", "SPL"),
    ],
)
def test_a_voxel_keeps_its_place_and_the_image_is_laid_out_as_people_look_at_it(
    tmp_path: Path, orientation: tuple[float, ...], plane: str, shown: str
) -> None:
    positions = positions_of(SHAPE[0], orientation)
    read = read_paths(write_series(tmp_path, scene(), positions, orientation, SPACING, PixelRepresentation=1))
    assert read.volume.voxels.max() == 2000
    np.testing.assert_allclose(lps(brightest_ras(read.volume)), bright_lps(positions, orientation, SPACING), atol=1e-4)
    assert (read.volume.plane, _directions(read.volume.affine)) == (plane, shown)
    # Columns, rows and slices are right-handed in the patient: nothing is mirrored.
    slices, rows, columns = read.volume.affine[:3, :3].T
    assert np.cross(columns, rows) @ slices > 0


def test_the_order_of_the_files_does_not_matter(tmp_path: Path) -> None:
    positions = positions_of(SHAPE[0])
    paths = write_series(tmp_path, scene(), positions)
    there, back = read_paths(paths), read_paths([paths[i] for i in (5, 2, 0, 3, 1, 4)])
    np.testing.assert_array_equal(there.volume.voxels, back.volume.voxels)
    np.testing.assert_array_equal(there.volume.affine, back.volume.affine)
    np.testing.assert_allclose(there.volume.spacing_mm, (2.0, 0.8, 0.5))
    falling = read_paths(write_series(tmp_path / "b", scene()[::-1], positions[::-1]))
    np.testing.assert_array_equal(there.volume.voxels, falling.volume.voxels)


def test_hu_are_int16_where_that_is_exact_and_float_where_not(tmp_path: Path) -> None:
    stored = scene(dtype=np.uint16)
    positions = positions_of(SHAPE[0])
    whole = read_paths(write_series(tmp_path / "a", stored, positions, RescaleSlope=1, RescaleIntercept=-1024))
    assert (whole.volume.voxels.dtype, whole.volume.unit) == (np.int16, "HU")
    np.testing.assert_array_equal(whole.volume.voxels, stored.astype(int) - 1024)
    assert whole.headers["value_range"] == (100 - 1024, 2000 - 1024)
    half = read_paths(write_series(tmp_path / "b", stored, positions, RescaleSlope=0.5, RescaleIntercept=-1024))
    assert half.volume.voxels.dtype == np.float32
    np.testing.assert_allclose(half.volume.voxels, stored * 0.5 - 1024)
    down = read_paths(write_series(tmp_path / "c", stored, positions, RescaleSlope=-1, RescaleIntercept=0))
    np.testing.assert_array_equal(down.volume.voxels, np.maximum(-stored.astype(int), -1024))


def test_a_slice_with_its_own_slope_turns_the_whole_volume_to_float(tmp_path: Path) -> None:
    stored, positions = scene(dtype=np.uint16), positions_of(SHAPE[0])
    paths = write_series(tmp_path, stored, positions, Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    paths[3:4] = write_series(
        tmp_path / "b",
        stored[3:4],
        positions[3:4],
        Modality="MR",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.4",
        RescaleSlope=0.25,
        RescaleIntercept=0,
    )
    volume = read_paths(paths).volume
    expected = stored.astype(np.float32)
    expected[3] *= 0.25
    assert (volume.voxels.dtype, volume.unit) == (np.float32, "relative")
    np.testing.assert_array_equal(volume.voxels, expected)


def test_padding_and_marks_outside_the_field_become_air_and_stay_int16(tmp_path: Path) -> None:
    stored = scene()
    stored[:, 0] = -2000
    stored[2, 5, 5] = -3024
    read = read_paths(write_series(tmp_path, stored, positions_of(SHAPE[0]), PixelPaddingValue=-2000))
    assert read.volume.voxels.dtype == np.int16
    assert (read.volume.voxels[:, 0] == -1024).all()
    assert read.volume.voxels[2, 5, 5] == -1024
    assert read.volume.voxels.min() == -1024
    words = [step.name for step in read.steps]
    assert "fill" in words
    assert "air" in words


def test_a_gap_is_refused_with_its_place_or_filled_in_on_request(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(8, dtype=np.int16)[:, None, None] * 10, (8, 20, 24)).copy()
    positions = positions_of(8)
    keep = [0, 1, 2, 4, 5, 6, 7]
    paths = write_series(tmp_path, ramp[keep], [positions[i] for i in keep])
    with pytest.raises(MedclipError, match=r"14\.00 to 18\.00 mm") as caught:
        read_paths(paths)
    assert caught.value.reason is Reason.UNEVEN_SLICES
    read = read_paths(paths, RESAMPLE)
    np.testing.assert_allclose(read.volume.voxels, ramp)
    np.testing.assert_allclose(read.volume.affine @ [7, 0, 0, 1], [30, 50, 24, 1], atol=1e-6)
    assert "resample" in [step.name for step in read.steps]


def test_uneven_slices_that_were_sagittal_keep_their_places_when_resampled(tmp_path: Path) -> None:
    positions = positions_of(SHAPE[0], SAGITTAL)
    moved = [list(p) for p in positions]
    moved[1][0] -= 0.9 * np.sign(moved[1][0] - moved[0][0])
    paths = write_series(tmp_path, scene(), moved, SAGITTAL, SPACING)
    with pytest.raises(MedclipError, match="evenly spaced"):
        read_paths(paths)
    volume = read_paths(paths, RESAMPLE).volume
    np.testing.assert_allclose(lps(brightest_ras(volume)), bright_lps(moved, SAGITTAL, SPACING), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({3: {"ImagePositionPatient": [-30, -50, 12.0]}}, "where another one does"),
        ({3: {"ImageOrientationPatient": list(OBLIQUE)}}, "not parallel"),
        ({3: {"PixelSpacing": [0.8, 0.6]}}, "pixel spacing"),
        ({3: {"ImagePositionPatient": [-20, -50, 16.0]}}, "above one another"),
        ({3: {"ImagePositionPatient": None}}, "do not say where"),
    ],
)
def test_a_stray_slice_is_refused_in_words(tmp_path: Path, change: dict[int, dict[str, object]], word: str) -> None:
    positions = positions_of(SHAPE[0])
    paths = write_series(tmp_path, scene(), positions)
    for index, elements in change.items():
        paths[index] = write_series(tmp_path / "x", scene()[:1], positions[:1], **elements)[0]
    with pytest.raises(MedclipError, match=word) as caught:
        read_paths(paths)
    assert caught.value.reason is Reason.UNEVEN_SLICES
    assert "Secret" not in str(caught.value)


def test_slices_of_another_size_are_refused(tmp_path: Path) -> None:
    positions = positions_of(2)
    paths = write_series(tmp_path, scene()[:1], positions[:1])
    paths += write_series(tmp_path / "b", scene()[:1, :, :20], positions[1:])
    with pytest.raises(MedclipError, match="numbers of pixels"):
        read_paths(paths)


def test_a_double_is_left_out_on_request(tmp_path: Path) -> None:
    positions = positions_of(SHAPE[0])
    paths = write_series(tmp_path, scene(), positions)
    paths += write_series(tmp_path / "b", scene()[2:3], positions[2:3])
    read = read_paths(paths, RESAMPLE)
    np.testing.assert_array_equal(read.volume.voxels, scene())
    assert "doubles" in [step.name for step in read.steps]


def test_gantry_tilt_shears_the_affine(tmp_path: Path) -> None:
    angle = np.radians(15)
    orientation = (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(-np.sin(angle)))
    positions = [(-5.0, -8.0, 10.0 + 2.0 * index) for index in range(SHAPE[0])]
    voxels = np.full(SHAPE, -1000, np.int16)
    voxels[BRIGHT] = 2000
    read = read_paths(write_series(tmp_path, voxels, positions, orientation, SPACING))
    expected = bright_lps(positions, orientation, SPACING)
    np.testing.assert_allclose(lps(brightest_ras(read.volume)), expected, atol=1e-4)
    assert any(step.name == "tilt" and "15.0" in step.detail for step in read.steps)


def test_what_a_single_slice_does_not_say_is_assumed_in_words(tmp_path: Path) -> None:
    (path,) = write_series(
        tmp_path,
        scene()[:1],
        [(0, 0, 0)],
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        PixelSpacing=None,
        SliceThickness=None,
    )
    read = read_paths([path])
    np.testing.assert_allclose(read.volume.spacing_mm, 1.0)
    assert {"orientation", "position", "spacing", "thickness"} <= {step.name for step in read.steps}


def test_the_size_is_checked_before_anything_is_decoded(tmp_path: Path) -> None:
    paths = write_series(tmp_path, scene(), positions_of(SHAPE[0]))
    with pytest.raises(MedclipError) as caught:
        read_paths(paths, limited(1000))
    assert caught.value.reason is Reason.TOO_LARGE


def test_a_truncated_slice_is_named(tmp_path: Path) -> None:
    paths = write_series(tmp_path, scene(), positions_of(SHAPE[0]))
    paths[2].write_bytes(paths[2].read_bytes()[:-100])
    with pytest.raises(MedclipError) as caught:
        read_paths(paths)
    assert (caught.value.reason, caught.value.where) == (Reason.TRUNCATED, str(paths[2]))


@given(
    st.permutations(range(7)),
    st.floats(-60, 60),
    st.floats(-60, 60),
    st.floats(0.3, 8),
    st.tuples(st.floats(-500, 500), st.floats(-500, 500), st.floats(-500, 500)),
)
def test_a_stack_is_found_whatever_its_directions(
    order: list[int], tilt: float, turn: float, step: float, origin: tuple[float, float, float]
) -> None:
    a, b = np.radians(tilt), np.radians(turn)
    rotation = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]) @ np.array(
        [[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]]
    )
    row, column, normal = rotation.T
    orientation = (*row, *column)
    places = [Place(tuple(np.array(origin) + normal * step * index), orientation, (0.7, 0.9)) for index in order]
    stack = stack_of(places, uneven="reject")
    assert [order[index] for index in stack.order] == list(range(7))
    corner = stack.affine @ [6, 10, 20, 1]
    expected = np.array(origin) + normal * step * 6 + column * 0.7 * 10 + row * 0.9 * 20
    np.testing.assert_allclose(lps(corner[:3]), expected, atol=1e-6)


def _frames(times: int, b_values: tuple[float, ...] = ()) -> list[dict[str, dict[str, object]]]:
    return [
        {
            "PlanePositionSequence": {"ImagePositionPatient": list(position)},
            "FrameContentSequence": {"StackID": "1", "TemporalPositionIndex": time + 1},
            **({"MRDiffusionSequence": {"DiffusionBValue": b_values[time]}} if b_values else {}),
        }
        for position in reversed(positions_of(SHAPE[0]))
        for time in range(times)
    ]


SHARED: dict[str, dict[str, object]] = {
    "PixelMeasuresSequence": {"PixelSpacing": list(SPACING), "SliceThickness": 2.0},
    "PlaneOrientationSequence": {"ImageOrientationPatient": list(AXIAL)},
    "PixelValueTransformationSequence": {"RescaleSlope": 1, "RescaleIntercept": -5, "RescaleType": "US"},
}


def test_an_enhanced_object_gives_what_its_slices_would(tmp_path: Path) -> None:
    stored = scene(dtype=np.uint16)
    path = write_enhanced(tmp_path / "a.dcm", stored[::-1], _frames(1), SHARED)
    volume = read_paths([path]).volume
    np.testing.assert_array_equal(volume.voxels, stored.astype(int) - 5)
    np.testing.assert_allclose(
        lps(brightest_ras(volume)), bright_lps(positions_of(SHAPE[0]), AXIAL, SPACING), atol=1e-6
    )


def test_times_and_b_values_become_an_axis_of_their_own(tmp_path: Path) -> None:
    stored = scene(dtype=np.uint16)[::-1]
    frames = np.repeat(stored, 3, axis=0)
    frames[1::3] += 1
    frames[2::3] += 2
    path = write_enhanced(tmp_path / "a.dcm", frames, _frames(3, (0, 500, 1000)), SHARED)
    read = read_paths([path])
    assert read.volume.voxels.shape == (3, *SHAPE)
    for time in range(3):
        np.testing.assert_array_equal(read.volume.voxels[time], stored[::-1].astype(int) - 5 + time)
    assert read.headers["b_values"] == (0, 500, 1000)
    assert read.headers["stored_shape"] == (24, 20, 6, 3)


def test_an_enhanced_ct_map_is_not_called_hu(tmp_path: Path) -> None:
    options = {"SOPClassUID": ENHANCED_CT, "Modality": "CT"}
    stored = scene(dtype=np.uint16)
    density = write_enhanced(tmp_path / "a.dcm", stored, _frames(1), SHARED, **options)
    assert read_paths([density]).volume.unit == "HU"
    shared = {
        **SHARED,
        "PixelValueTransformationSequence": {"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "Z"},
    }
    other = write_enhanced(tmp_path / "b.dcm", stored, _frames(1), shared, **options)
    assert read_paths([other]).volume.unit == "relative"


def test_a_missing_frame_is_refused(tmp_path: Path) -> None:
    groups = _frames(2)
    frames = np.repeat(scene(dtype=np.uint16), 2, axis=0)
    path = write_enhanced(tmp_path / "a.dcm", frames[:-1], groups[:-1], SHARED)
    with pytest.raises(MedclipError, match="1 to 2 frames") as caught:
        read_paths([path])
    assert caught.value.reason is Reason.UNEVEN_SLICES
    path = write_enhanced(tmp_path / "b.dcm", frames, groups[:-1], SHARED)
    with pytest.raises(MedclipError, match="another number of frames"):
        read_paths([path])


def test_a_mosaic_without_siemens_header_is_refused(tmp_path: Path) -> None:
    kind = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]
    paths = write_series(tmp_path, scene()[:1], [(0, 0, 0)], Modality="MR", ImageType=kind)
    with pytest.raises(MedclipError, match="mosaic") as caught:
        read_paths(paths)
    assert caught.value.reason is Reason.CORRUPT


def _write_mosaic(
    folder: Path, voxels: np.ndarray, along: list[float], first: float, *, numbers: str = "", size: int | None = None
) -> Path:
    """Write slices as tiles of a file that has the scanner's protocol and no header of the image."""
    count, rows, columns = voxels.shape
    side = int(np.ceil(np.sqrt(count)))
    tiles = np.zeros((side**2, rows, columns), voxels.dtype)
    tiles[:count] = voxels
    mosaic = tiles.reshape(side, side, rows, columns).swapaxes(1, 2).reshape(side * rows, side * columns)
    lines = [f"sSliceArray.lSize\t = \t{size or count}", *([f"sSliceArray.{numbers}\t = \t0x1"] if numbers else [])]
    # The scanner writes no line for a position of 0.
    lines += [f"sSliceArray.asSlice[{index}].sPosition.dTra\t = \t{mm}" for index, mm in enumerate(along) if mm]
    text = "<other> ### ASCCONV BEGIN object=a ###\n" + "\n".join(lines) + "\n### ASCCONV END ###"
    centre_to_corner = [-side * columns * SPACING[1] / 2, -side * rows * SPACING[0] / 2, first]
    path = write_series(
        folder,
        mosaic[None],
        [centre_to_corner],
        spacing=SPACING,
        Modality="MR",
        ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"],
        SpacingBetweenSlices=4.0,
    )[0]
    dataset = dcmread(path)
    dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x20, "OB", text.encode().ljust(4096))
    dataset.save_as(path)
    return path


@pytest.mark.parametrize(
    ("along", "first", "numbers", "tile_0"),
    [
        ([0, 4, 8, 12, 16, 20], 0, "", 0),
        ([20, 16, 12, 8, 4, 0], 0, "", 20),
        ([20, 16, 12, 8, 4, 0], 20, "", 20),
        ([0, 4, 8, 12, 16, 20], 0, "ucImageNumbTra", 20),
        ([20, 16, 12, 8, 4, 0], 0, "ucImageNumbTra", 0),
        ([0, 4, 8, 12, 16, 20], 0, "ucImageNumbSag", 0),
    ],
)
def test_a_mosaics_slices_lie_where_the_protocol_has_them(
    tmp_path: Path, along: list[float], first: float, numbers: str, tile_0: float
) -> None:
    read = read_paths([_write_mosaic(tmp_path, scene(), along, first, numbers=numbers)])
    rising = tile_0 == 0
    np.testing.assert_array_equal(read.volume.voxels[:: 1 if rising else -1], scene())
    slice_, row, column = BRIGHT
    corner = [-SHAPE[2] * SPACING[1] / 2, -SHAPE[1] * SPACING[0] / 2]
    place = [corner[0] + column * SPACING[1], corner[1] + row * SPACING[0], tile_0 + slice_ * (4 if rising else -4)]
    np.testing.assert_allclose(lps(brightest_ras(read.volume)), place, atol=1e-5)
    assert any(step.detail == "3 x 3 tiles to 6 slices, by the protocol" for step in read.steps)


@pytest.mark.parametrize(("along", "size"), [([0.0, 4, 8, 8, 12, 16], None), ([0.0] * 6, None), ([8.0], 1)])
def test_a_mosaic_whose_protocol_does_not_list_its_slices_is_refused(
    tmp_path: Path, along: list[float], size: int | None
) -> None:
    path = _write_mosaic(tmp_path, scene(), along, 0, size=size)
    with pytest.raises(MedclipError, match=r"how many slices .* private elements") as caught:
        read_paths([path])
    assert caught.value.reason is Reason.CORRUPT


def test_a_mosaic_whose_tiles_do_not_fill_it_is_one_image_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volume_frames, "_mosaic_header", lambda path: (48, np.eye(4), "protocol"))
    kind = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]
    read = read_paths(write_series(tmp_path, scene()[:1], [(0, 0, 0)], Modality="MR", ImageType=kind))
    np.testing.assert_array_equal(read.volume.voxels, scene()[:1])
    assert "not cut apart" in read.steps[0].detail
