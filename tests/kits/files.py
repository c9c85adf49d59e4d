"""Files built by code: small DICOM objects and images."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CR = "1.2.840.10008.5.1.4.1.1.1"
SECONDARY = "1.2.840.10008.5.1.4.1.1.7"


def dataset(pixels: NDArray[Any] | None = None, **elements: Any) -> FileDataset:
    """Build a DICOM data set; keywords set or replace elements, None removes one."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = elements.get("SOPClassUID", SECONDARY)
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["instance"])
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    values: dict[str, Any] = {
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "StudyInstanceUID": generate_uid(entropy_srcs=["study"]),
        "SeriesInstanceUID": generate_uid(entropy_srcs=["series"]),
        "PatientID": "SECRET-1",
        "PatientName": "Secret^Name",
        "Modality": "CR",
    }
    if pixels is not None:
        colour = pixels.ndim == 3
        bits = pixels.dtype.itemsize * 8
        values |= {
            "Rows": pixels.shape[0],
            "Columns": pixels.shape[1],
            "SamplesPerPixel": 3 if colour else 1,
            "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
            "BitsAllocated": bits,
            "BitsStored": bits,
            "HighBit": bits - 1,
            "PixelRepresentation": int(pixels.dtype.kind == "i"),
        }
        if colour:
            values["PlanarConfiguration"] = 0
    for keyword, value in (values | elements).items():
        if value is not None:
            setattr(data, keyword, value)
    if pixels is not None:
        data.PixelData = pixels.tobytes()
        data["PixelData"].VR = "OW" if pixels.dtype.itemsize > 1 else "OB"
    return data


def write_dicom(path: Path, pixels: NDArray[Any] | None = None, **elements: Any) -> Path:
    """Write a DICOM file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset(pixels, **elements).save_as(path, enforce_file_format=True)
    return path


def write_image(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    """Write pixels as the image format that the suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def ramp(height: int = 32, width: int = 48, dtype: Any = np.uint8, top: int = 255) -> NDArray[Any]:
    """Give a grey ramp from 0 to `top`."""
    return np.linspace(0, top, height * width).reshape(height, width).astype(dtype)


def huge_png(path: Path, side: int = 30_000) -> Path:
    """Write a PNG whose header states a huge size and whose data is a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def nested_dicom(path: Path, depth: int = 3000) -> Path:
    """Write a DICOM file whose sequences of undefined length nest deeply."""
    write_dicom(path, ramp())
    raw = path.read_bytes()
    opening = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    closing = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    at = raw.index(struct.pack("<HH2s", 0x0010, 0x0010, b"PN"))
    path.write_bytes(raw[:at] + opening * depth + closing * depth + raw[at:])
    return path


def element(keyword: str, value: Any) -> Dataset:
    """Build a data set of one element."""
    item = Dataset()
    setattr(item, keyword, value)
    return item
