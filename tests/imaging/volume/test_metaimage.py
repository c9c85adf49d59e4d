"""MetaImages have the values and the places that SimpleITK reads, and a header that lies costs no memory."""

from __future__ import annotations

import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import medclip
from medclip.errors import MedclipError, Reason
from medclip.files.recognise.inspect import inspect_file
from medclip.files.recognise.sniff import Format
from medclip.imaging.raster import read_raster
from medclip.imaging.volume.read import read_volume
from medclip.imaging.volume.volume_read import VolumeRead
from tests.kits.metaimages import metaimage, write_mha, write_mhd
from tests.kits.scoring import texture
from tests.kits.volumes import SETTINGS, limited

SHAPE = (18, 20, 22)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def _stored(dtype: str = "<i2") -> np.ndarray:
    return np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(dtype)


def _read(path: Path) -> VolumeRead:
    facts = inspect_file(path, SETTINGS)
    if facts.problem is not None:
        raise facts.problem.error(path)
    return read_volume([path], [facts], SETTINGS)


def _reason(path: Path) -> Reason:
    with pytest.raises(MedclipError) as caught:
        _read(path)
    assert "ROENTGEN" not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("dtype", ["<i1", "<u1", "<i2", ">i2", "<u2", "<i4", ">u4", "<i8", "<f4", ">f8"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("write", [write_mha, write_mhd])
def test_values_of_every_type_are_read_in_one_file_and_in_two(
    tmp_path: Path, dtype: str, compressed: bool, write: object
) -> None:
    stored = _stored(dtype)
    path = write(tmp_path / "a.any", stored, compressed=compressed)  # type: ignore[operator]
    voxels = _read(path).volume.voxels
    expected = stored.astype(np.float32) if stored.dtype.kind == "f" else stored
    np.testing.assert_array_equal(voxels[:, ::1, ::1], expected)
    assert voxels.dtype == expected.dtype.newbyteorder("=")


@settings(max_examples=60)
@given(
    st.lists(st.floats(-1, 1), min_size=9, max_size=9).filter(
        lambda n: abs(np.linalg.det(np.reshape(n, (3, 3)))) > 0.2
    ),
    st.tuples(*[st.floats(0.3, 4)] * 3),
    st.tuples(*[st.floats(-200, 200)] * 3),
)
def test_every_voxel_lies_where_header_and_itk_put_it(
    tmp_path_factory: pytest.TempPathFactory,
    numbers: list[float],
    spacing: tuple[float, ...],
    origin: tuple[float, ...],
) -> None:
    directions, _ = np.linalg.qr(np.reshape(numbers, (3, 3)))
    stored = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)
    path = tmp_path_factory.mktemp("m") / "a.mha"
    volume = _read(write_mha(path, stored, directions=directions, spacing=spacing, origin=origin)).volume
    index = np.indices(volume.voxels.shape).reshape(3, -1)
    ras = volume.affine[:3, :3] @ index + volume.affine[:3, 3:]
    z, y, x = (stored == volume.voxels.ravel()[:, None, None, None]).nonzero()[1:]
    lps = directions @ (np.array(spacing)[:, None] * np.stack([x, y, z])) + np.array(origin)[:, None]
    np.testing.assert_allclose(LPS_TO_RAS @ lps, ras, atol=1e-6)


@pytest.mark.parametrize("data", ["LIST\ns0.raw\ns1.raw\ns2.raw", "LIST 2D\ns0.raw\ns1.raw\ns2.raw", "s%01d.raw 0 2 1"])
def test_slices_in_files_of_their_own_are_one_volume(tmp_path: Path, data: str) -> None:
    stored = np.arange(3 * 18 * 20, dtype=np.uint16).reshape(3, 18, 20)
    for number, one in enumerate(stored):
        (tmp_path / f"s{number}.raw").write_bytes(one.tobytes())
    (tmp_path / "v.mhd").write_bytes(metaimage(stored, data=data)[0])
    np.testing.assert_array_equal(_read(tmp_path / "v.mhd").volume.voxels, stored)
    scan = medclip.scan(tmp_path, modality="ct")
    assert [len(unit.files) for study in scan.studies for unit in study.units] == [4]
    assert {file.status for file in scan.files} == {"readable"}


def test_a_fourth_axis_is_time_and_axes_of_one_are_none(tmp_path: Path) -> None:
    stored = np.arange(2 * 18 * 19 * 20, dtype=np.int16).reshape(2, 18, 19, 20)
    np.testing.assert_array_equal(_read(write_mha(tmp_path / "a.mha", stored)).volume.voxels, stored)
    single = write_mha(tmp_path / "b.mha", stored[:1])
    np.testing.assert_array_equal(_read(single).volume.voxels, stored[0])


def test_a_header_without_orientation_or_spacing_says_so(tmp_path: Path) -> None:
    path = write_mha(tmp_path / "a.mha", _stored(), changed={"TransformMatrix": "", "ElementSpacing": ""})
    assert {"orientation", "spacing"} <= {step.name for step in _read(path).steps}


def test_a_radiograph_is_an_image_with_its_pixels_and_spacing(tmp_path: Path) -> None:
    grey = texture(3, 60, 50)
    for name, stored in (("two.mha", grey), ("three.mhd", grey[None])):
        write = write_mha if name.endswith("mha") else write_mhd
        path = write(tmp_path / name, stored, spacing=[0.2] * stored.ndim)
        facts = inspect_file(path, SETTINGS)
        assert facts.format is Format.METAIMAGE_2D
        decoded = read_raster(path, facts.format, SETTINGS)
        np.testing.assert_array_equal(decoded.pixels[:, :, 0], grey)
        assert decoded.spacing_mm == (0.2, 0.2)
        sample = medclip.open_study(path, "xray").samples()[0]
        assert sample.kind == "image"


def test_deep_colour_and_oblong_pixels_of_one_slice_are_as_in_a_tiff(tmp_path: Path) -> None:
    colour = np.stack([texture(n, 40, 30) for n in range(3)], axis=2)
    wide = write_mha(tmp_path / "wide.mha", colour.astype(np.uint16) * 256, channels=3)
    decoded = read_raster(wide, Format.METAIMAGE_2D, SETTINGS)
    np.testing.assert_array_equal(decoded.pixels, colour)
    oblong = write_mha(tmp_path / "oblong.mha", colour[:, :, 0].astype(np.int16) - 500, spacing=[1, 3])
    decoded = read_raster(oblong, Format.METAIMAGE_2D, SETTINGS)
    assert decoded.pixels.shape == (120, 30, 1)
    assert decoded.spacing_mm == (1, 1)


def test_header_and_voxels_are_one_unit_and_neither_is_a_failed_row(tmp_path: Path) -> None:
    write_mhd(tmp_path / "A.mhd", _stored())
    (tmp_path / "A.raw").rename(tmp_path / "a.RAW")
    write_mhd(tmp_path / "b.mhd", np.full(SHAPE, 65, np.uint8), changed={"ElementDataFile": "other.raw"})
    (tmp_path / "b.raw").rename(tmp_path / "other.raw")  # voxels that look like text
    (tmp_path / "stray.raw").write_bytes(bytes(range(200)) * 9)
    scan = medclip.scan(tmp_path, modality="ct")
    status = {file.ref.name: (file.status, str(file.facts.format)) for file in scan.files}
    assert status.pop("stray.raw")[0] != "readable"
    assert {held for held, _ in status.values()} == {"readable"}
    assert sorted(len(unit.files) for study in scan.studies for unit in study.units) == [2, 2]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"DimSize": "100000 100000 100000"}, Reason.TOO_LARGE),
        ({"DimSize": "100000 100000 1"}, Reason.TOO_LARGE),
        ({"DimSize": "1000 1000 1000"}, Reason.TRUNCATED),
        ({"DimSize": "1000 1000 1000", "CompressedData": "True"}, Reason.TRUNCATED),
        ({"DimSize": "-20 20 20"}, Reason.CORRUPT),
        ({"DimSize": "1e30 20 20"}, Reason.CORRUPT),
        ({"DimSize": "20 20"}, Reason.CORRUPT),
        ({"NDims": "99999999"}, Reason.CORRUPT),
        ({"ElementSpacing": "inf 1 1"}, Reason.CORRUPT),
        ({"TransformMatrix": "0 0 0 0 0 0 0 0 0"}, Reason.CORRUPT),
        ({"ElementDataFile": "/etc/hostname"}, Reason.MISSING_FILE),
        ({"ElementDataFile": "../a.raw"}, Reason.MISSING_FILE),
        ({"ElementDataFile": "C:\\scans\\a.raw"}, Reason.MISSING_FILE),
        ({"ElementDataFile": "a.mha"}, Reason.MISSING_FILE),
        ({"ElementDataFile": "gone.raw"}, Reason.MISSING_FILE),
        ({"ElementDataFile": "x%d.raw 0 1000000000 1"}, Reason.CORRUPT),
        ({"ElementDataFile": "x%09999999999d.raw 0 3 1"}, Reason.CORRUPT),
        ({"ElementDataFile": ""}, Reason.TRUNCATED),
        ({"BinaryData": "False"}, Reason.NOT_SUPPORTED_YET),
        ({"ElementType": "MET_STRING"}, Reason.NOT_SUPPORTED_YET),
        ({"ElementNumberOfChannels": "3"}, Reason.NOT_SUPPORTED_YET),
        ({"HeaderSize": "-7", "ElementDataFile": "b.raw"}, Reason.TRUNCATED),
    ],
)
def test_a_header_that_lies_is_refused_with_a_reason_and_costs_no_memory(
    tmp_path: Path, changed: dict[str, str], reason: Reason
) -> None:
    (tmp_path / "b.raw").write_bytes(_stored().tobytes())
    last = changed.pop("ElementDataFile", "LOCAL")
    path = write_mha(tmp_path / "a.mha", _stored(), data=last, changed={"ElementDataFile": last, **changed})
    header = path.read_bytes()
    if "HeaderSize" in changed:  # before the last field
        path.write_bytes(
            header.replace(b"HeaderSize = -7\n", b"").replace(b"ElementType", b"HeaderSize = -7\nElementType")
        )
    if "ElementNumberOfChannels" in changed:
        moved = header.replace(b"ElementNumberOfChannels = 3\n", b"")
        path.write_bytes(moved.replace(b"ElementType", b"ElementNumberOfChannels = 3\nElementType"))
    tracemalloc.start()
    try:
        if inspect_file(path, SETTINGS).format is Format.METAIMAGE_2D:
            with pytest.raises(MedclipError) as caught:
                read_raster(path, Format.METAIMAGE_2D, SETTINGS)
            assert caught.value.reason is reason
        else:
            assert _reason(path) is reason
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("end", [0, 1, 3, 4, 100])
def test_voxels_that_end_early_are_never_made_up(tmp_path: Path, end: int) -> None:
    header, voxels = metaimage(_stored(), compressed=True)
    plain_header, plain = metaimage(_stored())
    (tmp_path / "z.mha").write_bytes(header + voxels[: len(voxels) - end])
    (tmp_path / "p.mha").write_bytes(plain_header + plain[: len(plain) - end])
    if end == 0:
        np.testing.assert_array_equal(_read(tmp_path / "z.mha").volume.voxels, _stored())
    else:
        assert _reason(tmp_path / "z.mha") is Reason.TRUNCATED
        assert _reason(tmp_path / "p.mha") is Reason.TRUNCATED


def test_compressed_voxels_with_another_check_sum_are_refused_and_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    header, voxels = metaimage(_stored(), compressed=True)
    (tmp_path / "a.mha").write_bytes(header + voxels[:-4] + b"four")
    assert _reason(tmp_path / "a.mha") is Reason.TRUNCATED
    (tmp_path / "b.mha").write_bytes(header + zlib.compress(bytes(3 * 10**7)))
    tracemalloc.start()
    try:
        assert not _read(tmp_path / "b.mha").volume.voxels.any()
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


@settings(max_examples=120)
@given(st.integers(0, 400), st.binary(min_size=1, max_size=6))
def test_a_header_with_other_bytes_raises_nothing_but_refusals(
    tmp_path_factory: pytest.TempPathFactory, at: int, other: bytes
) -> None:
    header, voxels = metaimage(np.zeros((3, 4, 5), np.int16))
    path = tmp_path_factory.mktemp("m") / "a.mha"
    path.write_bytes(header[:at] + other + header[at + len(other) :] + voxels)
    facts = inspect_file(path, limited(max_volume_bytes=10**7))
    if facts.problem is None and facts.format is Format.METAIMAGE:
        try:
            read_volume([path], [facts], limited(max_volume_bytes=10**7))
        except MedclipError as error:
            assert "ROENTGEN" not in str(error)  # noqa: PT017 - reading it is as good
