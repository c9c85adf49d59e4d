from __future__ import annotations

import gzip
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset

from medclip.files.recognise.sniff import Format, sniff, sniff_open
from tests.kits.files import dataset, ramp, write_dicom, write_image


def _nifti() -> bytes:
    return struct.pack("<i", 348) + b"\0" * 340 + b"n+1\0" + b"\0" * 4


SAMPLES: dict[str, tuple[bytes, Format]] = {
    "nothing": (b"", Format.EMPTY),
    "gif": (b"GIF89a" + b"\0" * 20, Format.GIF),
    "jpeg 2000 codestream": (b"\xff\x4f\xff\x51" + b"\0" * 20, Format.JPEG2000),
    "nifti": (_nifti(), Format.NIFTI),
    "nifti in gzip": (gzip.compress(_nifti()), Format.NIFTI),
    "text in gzip": (gzip.compress(b"hello"), Format.GZIP),
    "nrrd": (b"NRRD0004\ntype: short\n", Format.NRRD),
    "metaimage": (b"ObjectType = Image\nNDims = 3\n", Format.METAIMAGE),
    "wfdb header": (b"JS20000 2 500 5000\nJS20000.mat 16+24 1000/mV 16 0 -98 26 0 I\n", Format.WFDB),
    "wfdb header with tabs": (b"rec\t2\t500\t5000\nrec.dat\t16\t200/mV\t16\nrec.dat\t16\t200/mV\n# Age\n", Format.WFDB),
    "wfdb header with aligned fields": (b"rec  1  500/360 5000\nrec.dat  16x4:2+24  200\n", Format.WFDB),
    "wfdb header of segments with tabs": (b"rec/2\t1\t500\t300\ns1\t100\n~\t200\n", Format.WFDB),
    "labels with tabs": (b"a.png\t1\nb.png\t0\nc.png\t1\n", Format.CSV),
    "sizes with tabs": (b"a\t2\nb\t16\nc\t16\nd\t16\n", Format.CSV),
    "edf": (b"0       " + b" " * 248, Format.EDF),
    "scp": (b"\0" * 16 + b"SCPECG" + b"\0" * 20, Format.SCP_ECG),
    "aecg": (b'<?xml version="1.0"?><AnnotatedECG xmlns="urn:hl7-org:v3">', Format.XML_ECG),
    "muse in utf-16": ("<?xml version='1.0'?><RestingECG>".encode("utf-16"), Format.XML_ECG),
    "xml": (b"<?xml version='1.0'?><note/>", Format.XML),
    "html": (b"<!DOCTYPE html><html></html>", Format.HTML),
    "json": (b'{"a": 1}', Format.JSON),
    "csv": (b'file,label\na.png,"x, y"\nb.png,z\n', Format.CSV),
    "prose with commas": (b"Hello, world\nthis is a licence, really, it is\n", Format.TEXT),
    "matlab 5": (b"MATLAB 5.0 MAT-file, Platform", Format.MATLAB),
    "matlab 4": (struct.pack("<5I", 30, 12, 5000, 0, 4) + b"val\0" + b"\1\2" * 50, Format.MATLAB),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + b"\0" * 20, Format.HDF5),
    "mp4": (b"\0\0\0\x20ftypisom" + b"\0" * 20, Format.MP4),
    "avi": (b"RIFF\0\0\0\0AVI LIST", Format.AVI),
    "webp": (b"RIFF\0\0\0\0WEBPVP8 ", Format.WEBP),
    "pdf": (b"%PDF-1.7\n", Format.PDF),
    "noise": (bytes(range(1, 200)) * 3, Format.UNKNOWN),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_format_is_named_by_its_bytes(name: str) -> None:
    data, expected = SAMPLES[name]
    assert sniff_open(io.BytesIO(data)) is expected


@pytest.mark.parametrize(("suffix", "expected"), [("png", Format.PNG), ("jpg", Format.JPEG), ("tif", Format.TIFF)])
def test_a_image_with_a_wrong_suffix_is_still_that_image(tmp_path: Path, suffix: str, expected: Format) -> None:
    path = write_image(tmp_path / f"a.{suffix}", ramp())
    assert sniff(path.rename(tmp_path / "a.dcm")) is expected


def test_a_zip_and_a_bitmap_are_told_apart() -> None:
    archive, bitmap = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "hello")
    Image.fromarray(ramp()).save(bitmap, "BMP")
    archive.seek(0)
    bitmap.seek(0)
    assert (sniff_open(archive), sniff_open(bitmap)) == (Format.ZIP, Format.BMP)


@pytest.mark.parametrize(("implicit", "little"), [(True, True), (False, True), (False, False)])
def test_dicom_without_preamble_is_recognised_in_every_encoding(implicit: bool, little: bool) -> None:
    data = Dataset()
    data.update(dataset(ramp()))
    buffer = io.BytesIO()
    data.save_as(buffer, implicit_vr=implicit, little_endian=little)
    buffer.seek(0)
    assert sniff_open(buffer) is Format.DICOM


def test_a_dicomdir_is_not_taken_for_an_image(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "DICOMDIR", SOPClassUID="1.2.840.10008.1.3.10")
    assert sniff(path) is Format.DICOMDIR


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize(
    ("description", "tile", "pages", "expected"),
    [
        ("Aperio Image Library", None, 1, Format.SLIDE),
        ("<OME xmlns='x'></OME>", None, 1, Format.SLIDE),
        ("a photograph", None, 1, Format.TIFF),
        ("a photograph", (16, 16), 1, Format.TIFF),
        ("a pyramid", (16, 16), 2, Format.SLIDE),
    ],
)
def test_a_slide_is_told_from_a_image(
    tmp_path: Path, description: str, tile: tuple[int, int] | None, pages: int, expected: Format, bigtiff: bool
) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as writer:
        for page in range(pages):
            side = 64 >> page
            writer.write(np.zeros((side, side), np.uint8), tile=tile, description=description, metadata=None)
    assert sniff(path) is expected


def test_a_long_wfdb_header_with_tabs_is_recognised_by_its_beginning() -> None:
    header = b"rec\t200\t500\t5000\n" + b"rec.dat\t16\t200/mV\t16\t0\t0\t0\t0\tI\n" * 200
    assert sniff_open(io.BytesIO(header)) is Format.WFDB


@given(st.binary(max_size=600))
def test_any_bytes_have_a_format(data: bytes) -> None:
    assert sniff_open(io.BytesIO(data)) in Format
    assert sniff_open(io.BytesIO(b"II*\0" + data)) in Format
