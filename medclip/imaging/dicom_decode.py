"""Get the stored pixel values out of a DICOM file, with a reason for every way this fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.files.dicom_header import DicomHeader, read_header

_ORDER = {"pylibjpeg": 0, "gdcm": 2}
_CODEC_PACKAGES = "pylibjpeg-openjpeg, pylibjpeg-rle, pyjpegls, python-gdcm"


def open_dataset(path: Path, header: DicomHeader | None) -> tuple[Any, DicomHeader]:
    """Read a DICOM file with its pixel data.

    Returns:
        The pydicom data set and its plain header values.

    Raises:
        MedclipError: CORRUPT, TRUNCATED, PERMISSION_DENIED, MISSING_FILE. Texts of the parser are not passed on, since
            they may quote header values.
    """
    from pydicom import dcmread

    try:
        dataset = dcmread(path, force=True)
        if not getattr(dataset.file_meta, "TransferSyntaxUID", None):
            _guess_transfer_syntax(dataset)
        if header is None:
            with path.open("rb") as file:
                header = read_header(file)
        return dataset, header
    except MedclipError:
        raise
    except PermissionError:
        raise MedclipError(Reason.PERMISSION_DENIED, "The file may not be read.") from None
    except FileNotFoundError:
        raise MedclipError(Reason.MISSING_FILE, "The file does not exist any more.") from None
    except EOFError:
        raise MedclipError(Reason.TRUNCATED, "The DICOM file ends before its pixels do.") from None
    except RecursionError:
        raise MedclipError(Reason.CORRUPT, "The DICOM header nests sequences without end.") from None
    except MemoryError:
        raise MedclipError(Reason.TOO_LARGE, "The DICOM file does not fit into memory.") from None
    except Exception:
        raise MedclipError(Reason.CORRUPT, "The DICOM file cannot be parsed.") from None


def _guess_transfer_syntax(dataset: Any) -> None:
    """Name the transfer syntax of a file without meta information by how pydicom could parse it."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    implicit, little = dataset.original_encoding
    guess = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = guess


def decode(dataset: Any, header: DicomHeader) -> tuple[NDArray[Any], str]:
    """Decode the pixel data.

    Returns:
        Stored values, H x W or H x W x 3 (RGB), and the decoder's name.

    Raises:
        MedclipError: NOT_SUPPORTED_YET (transfer syntax), MISSING_CODEC, TRUNCATED or CORRUPT.
    """
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        encapsulated = bool(syntax.is_encapsulated)
    except (AttributeError, ValueError):
        raise MedclipError(
            Reason.NOT_SUPPORTED_YET, "The DICOM file names a transfer syntax that the standard does not know."
        ) from None
    if not encapsulated and len(dataset.PixelData) < _expected_bytes(header):
        raise MedclipError(Reason.TRUNCATED, "The DICOM file ends before its pixels do.")
    name, decoder = "native", None
    if encapsulated:
        try:
            decoder = get_decoder(syntax)
        except NotImplementedError:
            raise MedclipError(
                Reason.NOT_SUPPORTED_YET, f"The DICOM transfer syntax {syntax} is not one that can be decoded."
            ) from None
        if not decoder.is_available:
            raise MedclipError(
                Reason.MISSING_CODEC,
                f"No installed codec decodes {syntax.name}.",
                hint=f"Run: pip install 'medclip-imaging[dicom]' (it brings {_CODEC_PACKAGES}).",
            )
        name = syntax.name
    try:
        stored = _first_that_works(dataset, decoder) if decoder is not None else np.asarray(pixel_array(dataset))
    except MedclipError:
        raise
    except MemoryError:
        raise MedclipError(Reason.TOO_LARGE, "The image does not fit into memory.") from None
    except Exception:
        if encapsulated and not _ends_properly(dataset):
            raise MedclipError(Reason.TRUNCATED, "The compressed pixel data ends too early.") from None
        raise MedclipError(Reason.CORRUPT, "The pixel data is damaged and cannot be decoded.") from None
    if not stored.dtype.isnative:
        stored = stored.astype(stored.dtype.newbyteorder("="))
    colour = header.samples_per_pixel == 3
    if stored.shape != ((header.rows, header.columns, 3) if colour else (header.rows, header.columns)):
        raise MedclipError(Reason.CORRUPT, "The decoded picture does not have the size that the header states.")
    return stored, name


def _first_that_works(dataset: Any, decoder: Any) -> NDArray[Any]:
    """Decode with the fastest plug-in that can.

    pydicom asks GDCM first; measured on this machine, Pillow decodes baseline JPEG three times and OpenJPEG decodes
    JPEG 2000 1.4 times as fast, to the same values, and GDCM can abort the process on damaged files.
    """
    from pydicom.pixels.utils import pixel_array

    names = sorted(decoder.available_plugins, key=lambda name: (_ORDER.get(name, 1), name))
    if "JPEG Baseline" in decoder.UID.name:
        names = sorted(names, key=lambda name: name != "pillow")
    for name in names[:-1]:
        try:
            return np.asarray(pixel_array(dataset, decoding_plugin=name))
        except MemoryError:
            raise
        except Exception:  # noqa: S112 - the next one may be able to; the last one's error counts
            continue
    if "JPEG Extended" in decoder.UID.name and dataset.BitsAllocated > 8:
        return _twelve_bit_jpeg(dataset)
    return np.asarray(pixel_array(dataset, decoding_plugin=names[-1]))


def _twelve_bit_jpeg(dataset: Any) -> NDArray[Any]:
    """Decode 12-bit JPEG, which no plug-in of pydicom decodes."""
    from pydicom.encaps import generate_frames

    try:
        import imagecodecs
    except ImportError:
        raise MedclipError(
            Reason.MISSING_CODEC, "No installed codec decodes 12-bit JPEG.", hint="Run: pip install imagecodecs"
        ) from None
    return np.asarray(imagecodecs.jpeg_decode(next(generate_frames(dataset.PixelData, number_of_frames=1))))


def _expected_bytes(header: DicomHeader) -> int:
    samples = header.samples_per_pixel
    if header.photometric == "YBR_FULL_422":
        samples = 2
    return header.rows * header.columns * samples * header.bits_allocated // 8


def _ends_properly(dataset: Any) -> bool:
    """Say whether the last fragment ends with the end marker of its codec (JPEG family: FFD9; else unknown)."""
    data = dataset.PixelData.rstrip(b"\0")
    return (
        data.endswith((b"\xff\xd9", b"\xff\xd9\xfe\xff\xdd\xe0"))
        or "JPEG" not in dataset.file_meta.TransferSyntaxUID.name
    )
