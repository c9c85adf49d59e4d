"""Small files that unpack to hundreds of megabytes, or nest without end, in every format that packs: each is refused.

Tiles of TIFF and slides are in `test_stated_size`, NIfTI, MINC, MATLAB, tables and tars beside their own tests.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from medclip.dicom.codecs.transfer_syntax import RLE
from medclip.dicom.pixels.render import read_dicom
from medclip.errors import MedclipError
from medclip.files.recognise.sniff import Format
from medclip.imaging.raster import read_raster
from medclip.imaging.volume.nifti import read_nifti
from medclip.settings import Settings
from tests.kits import bombs, codestreams, ecg
from tests.kits.files import nested_dicom, ramp, write_dicom

SETTINGS = Settings()
_LITTLE = 96 * 2**20


@pytest.fixture(scope="module", autouse=True)
def _imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Read a harmless file first: the modules that reading imports are not the memory of a bomb."""
    read_dicom(write_dicom(tmp_path_factory.mktemp("harmless") / "a.dcm", ramp()), SETTINGS)


def _png(path: Path, *chunks: tuple[bytes, bytes], pixels: bytes | None = None) -> Path:
    pixels = zlib.compress(bytes(65 * 64)) if pixels is None else pixels
    head = struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0)
    every = ((b"IHDR", head), *chunks, (b"IDAT", pixels), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in every)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def _png_of_pixels(folder: Path) -> object:
    return read_raster(_png(folder / "a.png", pixels=bombs.deflated()), Format.PNG, SETTINGS)


def _png_of_text(folder: Path) -> object:
    return read_raster(_png(folder / "a.png", (b"zTXt", b"a\0\0" + bombs.deflated())), Format.PNG, SETTINGS)


def _png_of_profile(folder: Path) -> object:
    return read_raster(_png(folder / "a.png", (b"iCCP", b"a\0\0" + bombs.deflated())), Format.PNG, SETTINGS)


def _gif_with_a_frame_beyond_its_screen(folder: Path) -> object:
    Image.fromarray(ramp(8, 8)).save(folder / "a.gif")
    data = bytearray((folder / "a.gif").read_bytes())
    at = data.index(b",\0\0\0\0\x08\0\x08\0")
    data[at + 5 : at + 9] = struct.pack("<HH", 60_000, 60_000)
    (folder / "a.gif").write_bytes(data)
    return read_raster(folder / "a.gif", Format.GIF, SETTINGS)


def _deflated_dicom(folder: Path) -> object:
    path = write_dicom(folder / "a.dcm", ramp())
    head = path.read_bytes()
    at = head.index(b"1.2.840.10008.1.2.1\0")
    stated = b"1.2.840.10008.1.2.1.99"
    length = struct.unpack_from("<H", head, at - 2)[0]
    head = head[: at - 2] + struct.pack("<H", len(stated)) + stated + head[at + length :]
    start = 128 + 4 + 12
    group = struct.unpack_from("<I", head, start - 4)[0] + len(stated) - length
    head = head[: start - 4] + struct.pack("<I", group) + head[start : start + group]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    element = struct.pack("<HH2sHI", 0x0009, 0x0010, b"OB", 0, bombs.MANY_BYTES)
    piece = bytes(2**20)
    body = packer.compress(element) + b"".join(packer.compress(piece) for _ in range(bombs.MANY_BYTES // 2**20))
    path.write_bytes(head + body + packer.flush())
    return read_dicom(path, SETTINGS)


def _rle_dicom(folder: Path) -> object:
    frame = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * (bombs.MANY_BYTES // 128)
    return read_dicom(codestreams.write_streams(folder / "a.dcm", RLE, [frame]), SETTINGS)


def _nested_dicom(folder: Path) -> object:
    nested_dicom(folder / "a.dcm", 20_000)
    return read_dicom(folder / "a.dcm", SETTINGS)


def _nifti_of_extensions(folder: Path) -> object:
    import gzip

    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, 8, 8, 8, 1, 1, 1, 1)
    struct.pack_into("<hh", head, 70, 2, 8)
    struct.pack_into("<8f", head, 76, 1, 1, 1, 1, 1, 1, 1, 1)
    struct.pack_into("<f", head, 108, float(bombs.MANY_BYTES))
    head[344:348] = b"n+1\0"
    with gzip.open(folder / "a.nii.gz", "wb") as file:
        file.write(head)
        for _ in range(bombs.MANY_BYTES // 2**20):
            file.write(bytes(2**20))
    return read_nifti(folder / "a.nii.gz", SETTINGS)


def _laughs(folder: Path) -> object:
    names = "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9))
    start = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "lol">{names}]>'
    document = start + ecg.aecg({"I": [1, 2]}).replace(ecg.PATIENT, "&j;")
    (folder / "a.xml").write_text(document)
    return ecg.read_as(folder / "a.xml", Format.XML_ECG)


def _a_file_of_the_machine(folder: Path) -> object:
    start = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    (folder / "a.xml").write_text(start + ecg.aecg({"I": [1, 2]}).replace(ecg.PATIENT, "&a;"))
    return ecg.read_as(folder / "a.xml", Format.XML_ECG)


def _nested_xml(folder: Path) -> object:
    (folder / "a.xml").write_text("<AnnotatedECG>" + "<a>" * 100_000 + "</a>" * 100_000 + "</AnnotatedECG>")
    return ecg.read_as(folder / "a.xml", Format.XML_ECG)


BOMBS: dict[str, Callable[[Path], object]] = {
    "PNG, pixels": _png_of_pixels,
    "PNG, text": _png_of_text,
    "PNG, colour profile": _png_of_profile,
    "GIF, a frame beyond its screen": _gif_with_a_frame_beyond_its_screen,
    "DICOM, deflated": _deflated_dicom,
    "DICOM, RLE": _rle_dicom,
    "DICOM, nested": _nested_dicom,
    "NIfTI, extensions": _nifti_of_extensions,
    "XML, a billion laughs": _laughs,
    "XML, a file of the machine": _a_file_of_the_machine,
    "XML, nested": _nested_xml,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_takes_little_memory_and_ends_in_its_reason(bomb: str, tmp_path: Path) -> None:
    started = time.monotonic()
    with bombs.peak_memory() as peak:
        try:
            BOMBS[bomb](tmp_path)
            refused = False
        except MedclipError:
            refused = True
    assert refused or bomb == "PNG, pixels", "of a PNG no more is unpacked than its rows need"
    assert peak.num_bytes < _LITTLE
    assert time.monotonic() - started < 60


@pytest.mark.slow
def test_a_deflated_bomb_takes_no_more_after_big_blocks_were_allocated_and_freed(tmp_path: Path) -> None:
    """What glibc keeps of a freed block depends on the largest one freed before, and so did a buffer that grows."""
    peaks = []
    for history_bytes in (0, 2**20, 2**24, 31 * 2**20, 2**24, 31 * 2**20):
        blocks = [bytes(history_bytes) for _ in range(8)]
        del blocks
        with bombs.peak_memory() as peak, pytest.raises(MedclipError):
            _deflated_dicom(tmp_path)
        peaks.append(peak.num_bytes)
    assert max(peaks) < 80 * 2**20, "64 MiB are inflated before the data set is refused"
