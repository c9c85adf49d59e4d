"""Open a DICOM file for its pixels, with a reason for every way this fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medclip.dicom.header.elements import integer, side_of, text
from medclip.dicom.header.parse import parsed, pixel_keyword
from medclip.dicom.header.read import DicomHeader, read_header
from medclip.dicom.pixels.decoded import check_size
from medclip.errors import MedclipError, Reason
from medclip.settings import Settings
from medclip.wording import count

GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "PALETTE COLOR")
_WORDS = (1, 8, 16, 32, 64)
YBR = ("YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT")


def open_dataset(path: Path, header: DicomHeader | None, settings: Settings) -> tuple[Any, DicomHeader]:
    """Read a DICOM file with its pixel data; the file is parsed once.

    Args:
        path: The file.
        header: Header of the file, where that was read before; else the values that pixels need are taken from the data
            set.
        settings: Limits, for what is deflated.

    Returns:
        The pydicom data set, with a transfer syntax that fits its data, and its plain header values.

    Raises:
        MedclipError: CORRUPT, TRUNCATED, PERMISSION_DENIED, MISSING_FILE, TOO_LARGE. Texts of the parser are not
            passed on, since they may quote header values.
    """

    def expected(dataset: Any) -> int:
        known = _pixel_header(dataset)
        check_size(known.columns, known.rows, settings) if known.rows or known.columns else None
        return check_volume(known, known.frames, settings)

    try:
        dataset = parsed(path, expected)
        if header is None:
            header = _pixel_header(dataset)
            if not header.has_pixels:  # what is wrong then, the careful reader knows
                with path.open("rb") as file:
                    header = read_header(file)
        return dataset, header
    except MedclipError:
        raise
    except PermissionError:
        raise MedclipError(Reason.PERMISSION_DENIED, "the file may not be read.") from None
    except FileNotFoundError:
        raise MedclipError(Reason.MISSING_FILE, "the file does not exist.") from None
    except EOFError:
        raise MedclipError(Reason.TRUNCATED, "the DICOM file ends before its pixels do.") from None
    except RecursionError:
        raise MedclipError(Reason.CORRUPT, "the DICOM header nests sequences without end.") from None
    except MemoryError:
        raise MedclipError(Reason.TOO_LARGE, "the DICOM file does not fit into memory.") from None
    except Exception:
        raise MedclipError(Reason.CORRUPT, "the DICOM file cannot be parsed.") from None


def check(header: DicomHeader, dataset: Any, settings: Settings) -> None:
    """Refuse what cannot become pixels, from the header alone.

    Raises:
        MedclipError: TRUNCATED, NO_PIXELS, CORRUPT, NOT_SUPPORTED_YET, TOO_LARGE.
    """
    if not header.has_pixels:
        raise MedclipError(Reason.NO_PIXELS, "the DICOM object holds no pixel data.")
    if pixel_keyword(dataset) == "":
        raise MedclipError(Reason.TRUNCATED, "the DICOM file ends before its pixels do.")
    if not header.photometric and header.float_pixels:
        return check_size(header.columns, header.rows, settings)
    if not header.photometric:
        raise MedclipError(Reason.CORRUPT, "the DICOM header states no photometric interpretation.")
    if header.photometric not in (*GREY, *COLOUR, *YBR):
        raise MedclipError(
            Reason.NOT_SUPPORTED_YET,
            "the DICOM header's photometric interpretation is none that is read; "
            "MONOCHROME1, MONOCHROME2, RGB, PALETTE COLOR and YBR are.",
        )
    _check_samples(header)
    check_size(header.columns, header.rows, settings)


def _check_samples(header: DicomHeader) -> None:
    """Refuse a description of pixels that contradicts itself, or that nobody reads."""
    if header.photometric in ("RGB", *YBR) and header.samples_per_pixel != 3:
        raise MedclipError(
            Reason.CORRUPT,
            f"the DICOM header says {header.photometric} and {header.samples_per_pixel} sample(s) for each pixel; "
            "colour has 3.",
        )
    if not header.bits_allocated:
        raise MedclipError(Reason.CORRUPT, "the DICOM header does not state how many bits a pixel has (BitsAllocated).")
    if header.bits_allocated not in _WORDS:
        raise MedclipError(
            Reason.NOT_SUPPORTED_YET,
            f"the DICOM header states words of {header.bits_allocated} bits; 1, 8, 16, 32 and 64 are read.",
        )


def check_volume(header: DicomHeader, frames: int, settings: Settings) -> int:
    """Refuse more decoded bytes than allowed, by what the header states, before anything is allocated.

    Returns:
        The decoded bytes.

    Raises:
        MedclipError: TOO_LARGE beyond `settings.max_volume_bytes`. A single image is limited by its pixels instead.
    """
    size = frames * header.rows * header.columns * header.samples_per_pixel * max(1, header.bits_allocated // 8)
    if frames > 1 and size > settings.max_volume_bytes:
        raise MedclipError(
            Reason.TOO_LARGE,
            f"{count(frames, 'frame')} would take {size:,} bytes; the limit is {settings.max_volume_bytes:,}.",
            hint="A larger max_volume_bytes below [limits] in medclip.toml, or of medclip.Settings, raises the limit.",
        )
    return size


def _pixel_header(dataset: Any) -> DicomHeader:
    """Take the header values that pixels and `public_headers` need; several times as quick as all of them."""
    side = text(dataset, "ImageLaterality") or text(dataset, "Laterality")
    keyword = pixel_keyword(dataset)
    return DicomHeader(
        modality=text(dataset, "Modality").upper(),
        sop_class=text(dataset, "SOPClassUID"),
        transfer_syntax=str(dataset.file_meta.TransferSyntaxUID),
        rows=integer(dataset, "Rows", 0),
        columns=integer(dataset, "Columns", 0),
        frames=max(1, integer(dataset, "NumberOfFrames", 1)),
        samples_per_pixel=integer(dataset, "SamplesPerPixel", 1),
        bits_allocated=integer(dataset, "BitsAllocated", 0),
        bits_stored=integer(dataset, "BitsStored", 0),
        signed=integer(dataset, "PixelRepresentation", 0) == 1,
        photometric=text(dataset, "PhotometricInterpretation").upper(),
        has_pixels=bool(keyword),
        float_pixels=keyword not in ("", "PixelData"),
        view_position=text(dataset, "ViewPosition").upper(),
        laterality=side_of(side),
        burned_in={"YES": True, "NO": False}.get(text(dataset, "BurnedInAnnotation").upper()),
        presentation_intent=text(dataset, "PresentationIntentType").upper(),
    )
