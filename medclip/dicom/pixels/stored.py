"""Open a DICOM file for its pixels, and read the stored values of its frames, whatever compresses them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.codecs import decoders as dicom_codecs
from medclip.dicom.codecs.codestream import FIRST_ITEM, syntax_of
from medclip.dicom.codecs.completeness import NO_END, UNTERMINATED_HINT
from medclip.dicom.header.elements import integer, own_bytes, raw_bytes, side_of, text
from medclip.dicom.header.parse import meta_of, parsed, pixel_keyword
from medclip.dicom.header.read import DicomHeader, read_header
from medclip.dicom.pixels.decoded import check_size
from medclip.dicom.pixels.display import ybr_to_rgb
from medclip.errors import MedclipError, Reason, opening
from medclip.settings import Settings
from medclip.wording import count

GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "PALETTE COLOR")
_PLAIN = "1.2.840.10008.1.2.1"
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
        stated = _pixel_header(dataset)
        check_size(stated.columns, stated.rows, settings) if stated.rows or stated.columns else None
        return check_volume(stated, stated.frames, settings)

    try:
        with opening():
            dataset = parsed(path, expected)
            if header is None:
                header = _pixel_header(dataset)
                if not header.has_pixels:  # what is wrong then, the careful reader knows
                    with path.open("rb") as file:
                        header = read_header(file)
            return dataset, header
    except MedclipError:
        raise
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


def aligned(pixels: NDArray[Any], bits_stored: int, high_bit: int) -> tuple[NDArray[Any], int]:
    """Move values down that stand in the high bits of their words.

    The standard has allowed only HighBit = BitsStored - 1 for long. Many headers with another HighBit are wrong, so it
    is believed only where the pixels agree: some are too large for the stored bits.

    Args:
        pixels: Integers of any shape.
        bits_stored: Number of bits that are the value.
        high_bit: The place of the highest of them, from 0.

    Returns:
        The pixels, and by how many bits they were moved.
    """
    shift = high_bit + 1 - bits_stored
    if not 0 < shift <= 8 * pixels.dtype.itemsize - bits_stored or not pixels.size:
        return pixels, 0
    words = pixels.view(f"{pixels.dtype.byteorder}u{pixels.dtype.itemsize}")
    fits = int(words.max()) < 1 << bits_stored
    if pixels.dtype.kind == "i":  # negative values have all high bits set
        fits |= -(1 << bits_stored - 1) <= int(pixels.min()) and int(pixels.max()) < 1 << bits_stored - 1
    return (pixels, 0) if fits else (pixels >> shift, shift)


def without_unused_bits(pixels: NDArray[Any], bits_stored: int) -> NDArray[Any]:
    """Take away what stands in the bits above the stored ones (overlays of old objects, or nothing in particular).

    Args:
        pixels: Integers of any shape.
        bits_stored: Number of low bits that are the value; the highest of them is the sign of signed pixels.
    """
    signed = pixels.dtype.kind == "i"
    low, high = int(pixels.min()) if signed else 0, int(pixels.max())
    first, last = (-(1 << bits_stored - 1), (1 << bits_stored - 1) - 1) if signed else (0, (1 << bits_stored) - 1)
    if first <= low and high <= last:
        return pixels
    shift = 8 * pixels.dtype.itemsize - bits_stored
    return (pixels << shift) >> shift


def with_sign(pixels: NDArray[Any], bits_stored: int) -> NDArray[Any]:
    """Return signed pixels their sign back where a codec that knows none (JPEG, JPEG-LS) decoded their bits.

    Args:
        pixels: Integers of any shape.
        bits_stored: Number of low bits that are the value.
    """
    if pixels.dtype.kind != "i" or not 0 < bits_stored < 8 * pixels.dtype.itemsize:
        return pixels
    lost = pixels.min() >= 0 and 1 << bits_stored - 1 <= int(pixels.max()) < 1 << bits_stored
    return without_unused_bits(pixels, bits_stored) if lost else pixels


_FLOATS = {"FloatPixelData": "f4", "DoubleFloatPixelData": "f8"}
_YBR_FULL = ("YBR_FULL", "YBR_FULL_422")
_ALIKE = {
    dicom_codecs.JPEG_2000[1]: (*dicom_codecs.JPEG_2000, *dicom_codecs.HTJ2K),
    dicom_codecs.LOSSLESS: (dicom_codecs.LOSSLESS_SV1,),
    dicom_codecs.JPEG_LS: (dicom_codecs.JPEG_LS_NEAR,),
    dicom_codecs.BASELINE: (dicom_codecs.EXTENDED,),
}
"""Syntaxes whose codestreams begin alike."""


class Stored:
    """Reads frames of an open data set as they are stored; colour as RGB, palettes as indices.

    Args:
        dataset: The pydicom data set.
        header: Plain values of the header.
        align: Whether values that stand in the high bits of their words (HighBit) are moved down. pydicom leaves them.
        unterminated: Whether a compressed frame that lacks its end marker, and nothing else, is read.

    Raises:
        MedclipError: NOT_SUPPORTED_YET (transfer syntax, YBR_PARTIAL that is not compressed), MISSING_CODEC,
            TRUNCATED where less pixel data is there than the header states, or CORRUPT where the transfer syntax is
            wrong and another cannot be proven.
    """

    def __init__(self, dataset: Any, header: DicomHeader, *, align: bool = True, unterminated: bool = False) -> None:
        self._dataset, self._header, self._align = dataset, header, align
        self._keyword = pixel_keyword(dataset)
        self._syntax = dataset.file_meta.TransferSyntaxUID
        self.decoder = "native"
        """Name of the codec and the transfer syntax; known for certain after the first frame."""
        self.found = ""
        """Colour of the codestream in words, where the header says something else."""
        self.stated = ""
        """Compressed syntax that the header states where the pixels are plain."""
        self.moved = 0
        """By how many bits values were moved down."""
        self.ends = dicom_codecs.Ends(accept=unterminated)
        """How compressed frames ended."""
        try:
            self._encapsulated = bool(self._syntax.is_encapsulated)
        except (AttributeError, ValueError):
            raise MedclipError(
                Reason.NOT_SUPPORTED_YET, "the DICOM file names a transfer syntax that the standard does not know."
            ) from None
        if self._encapsulated and self._lacks_items():
            self._go_native()
        if self._encapsulated:
            self._check_codec()
        elif header.photometric.startswith("YBR_PARTIAL"):
            raise MedclipError(
                Reason.NOT_SUPPORTED_YET,
                f"{header.photometric} is read from JPEG only, and this file is not compressed.",
            )
        elif len(raw_bytes(dataset, self._keyword)) < self._expected_bytes():
            raise MedclipError(Reason.TRUNCATED, "the DICOM file ends before its pixels do.")

    def _lacks_items(self) -> bool:
        """Return whether pixel data is there, and not in items, as all compressed pixels are."""
        data = raw_bytes(self._dataset, self._keyword)
        return len(data) > 0 and bytes(data[:4]) != FIRST_ITEM

    def _go_native(self) -> None:
        """Take pixels for plain where the header says that they are compressed, if their length proves it.

        Raises:
            MedclipError: CORRUPT if it does not, or if it leaves open whether colours are YCbCr still.
        """
        length, expected = len(raw_bytes(self._dataset, self._keyword)), self._expected_bytes()
        wrong = f"the transfer syntax is wrong: it says {self._syntax.name}, and the pixels are not compressed"
        if length != expected + expected % 2:
            raise MedclipError(
                Reason.CORRUPT,
                f"{wrong} so; plain pixels would take {expected:,} bytes, and there are {length:,}.",
            )
        if self._header.photometric in YBR:
            raise MedclipError(
                Reason.CORRUPT,
                f"{wrong}, so that nothing tells whether they are {self._header.photometric}, as the header says, "
                "or RGB by now.",
                hint="Write the file again with the transfer syntax and colours that it has.",
            )
        self.stated = str(self._syntax.name)
        self._encapsulated = False
        self._dataset.file_meta = meta_of(_PLAIN)
        self._syntax = self._dataset.file_meta.TransferSyntaxUID

    def _check_codec(self) -> None:
        if not dicom_codecs.decoder_for(str(self._syntax)).is_available:
            raise MedclipError(
                Reason.MISSING_CODEC,
                f"no installed codec decodes {self._syntax.name}.",
                hint=f"Run: {dicom_codecs.PIP_LINE}",
            )

    @property
    def frames(self) -> int:
        """How many frames the header states."""
        return self._header.frames

    def read(self, indices: Sequence[int] | None = None) -> NDArray[Any]:
        """Decode frames.

        Args:
            indices: Numbers of the frames; all if not given.

        Returns:
            F x H x W, or F x H x W x 3 (RGB), native byte order. It may be a read-only view of the file's bytes.

        Raises:
            MedclipError: TRUNCATED, CORRUPT, TOO_LARGE.
        """
        wanted = range(self.frames) if indices is None else list(indices)
        try:
            stored = self._compressed(wanted) if self._encapsulated else self._native(wanted)
        except MedclipError:
            raise
        except MemoryError:
            raise MedclipError(Reason.TOO_LARGE, "the image does not fit into memory.") from None
        except Exception:
            if self._encapsulated and (self.ends.lacking or self._lacks_frames()):
                raise self._cut() from None
            raise MedclipError(Reason.CORRUPT, "the pixel data is damaged and cannot be decoded.") from None
        header = self._header
        size = (len(wanted), header.rows, header.columns, *((3,) if header.samples_per_pixel == 3 else ()))
        if stored.shape != size:
            raise MedclipError(Reason.CORRUPT, "the decoded image does not have the size that the header states.")
        return stored if stored.dtype.isnative else stored.astype(stored.dtype.newbyteorder("="))

    def _expected_bytes(self) -> int:
        samples = 2 if self._halved() else self._header.samples_per_pixel
        return self._bytes_of(samples)

    def _bytes_of(self, samples: int) -> int:
        header = self._header
        return (header.frames * header.rows * header.columns * samples * header.bits_allocated + 7) // 8

    def _halved(self) -> bool:
        """Return whether native pixels share their chroma.

        Where all three samples are there, the name is left over from the JPEG that the file once held.
        """
        if self._header.photometric != "YBR_FULL_422":
            return False
        return len(raw_bytes(self._dataset, self._keyword)) < self._bytes_of(3)

    def _native(self, wanted: Sequence[int]) -> NDArray[Any]:
        dtype = self._plain_dtype()
        if dtype is None:
            return self._by_pydicom(wanted, "")
        header = self._header
        samples = header.samples_per_pixel
        count = header.rows * header.columns * samples
        data = raw_bytes(self._dataset, self._keyword)
        every = np.frombuffer(data, dtype, count * header.frames).reshape(header.frames, count)
        if len(wanted) == header.frames:
            chosen = every
        elif len(wanted) == 1:
            chosen = every[wanted[0] : wanted[0] + 1]
        else:
            chosen = every[list(wanted)]
        if dtype.kind != "f" and 0 < header.bits_stored < header.bits_allocated:
            if self._align:
                chosen, self.moved = aligned(chosen, header.bits_stored, integer(self._dataset, "HighBit", 0))
            chosen = without_unused_bits(chosen, header.bits_stored)
        if samples == 1:
            return chosen.reshape(-1, header.rows, header.columns)
        if integer(self._dataset, "PlanarConfiguration", 0) == 1:
            planes = chosen.reshape(-1, samples, header.rows, header.columns)
            colour = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
        else:
            colour = chosen.reshape(-1, header.rows, header.columns, samples)
        if header.photometric == "YBR_FULL_422":
            self.found = "YCbCr with all its samples"
        return ybr_to_rgb(colour) if header.photometric in _YBR_FULL else colour

    def _plain_dtype(self) -> np.dtype[Any] | None:
        """Return the type of pixels that lie in the file as numpy wants them; None for those that do not."""
        header = self._header
        order = "<" if self._syntax.is_little_endian else ">"
        if self._keyword in _FLOATS:
            return np.dtype(order + _FLOATS[self._keyword])
        size, rest = divmod(header.bits_allocated, 8)
        if rest or size not in (1, 2, 4) or self._halved():
            return None
        if header.photometric in _YBR_FULL and size != 1:
            return None
        if size == 1 and order == ">":  # may be stored as swapped pairs
            return None
        return np.dtype(f"{order}{'i' if header.signed else 'u'}{size}")

    def _compressed(self, wanted: Sequence[int]) -> NDArray[Any]:
        for change in (lambda: True, self._drop_offsets, self._other_syntax):
            if not change():
                continue
            self.ends.lacking, self.ends.accepted = "", 0
            for name in dicom_codecs.in_order(str(self._syntax)):
                try:
                    stored = self._by_pydicom(wanted, name)
                except MemoryError:
                    raise
                except Exception:  # noqa: S112 - the next one may be able to
                    continue
                self.decoder = f"{dicom_codecs.spoken(name)}, {self._syntax.name}"
                return stored
        raise ValueError("no codec could")

    def _by_pydicom(self, wanted: Sequence[int], plugin: str) -> NDArray[Any]:
        from pydicom.pixels.decoders.base import get_decoder

        _complete(self._dataset, self._header)
        if self._encapsulated and str(self._syntax) != dicom_codecs.RLE and self._header.samples_per_pixel > 1:
            self._dataset.PlanarConfiguration = 0  # whatever the header kept: these codecs give pixel after pixel
        codec = dicom_codecs.decoder_for(str(self._syntax)) if self._encapsulated else get_decoder(self._syntax)
        options: dict[str, Any] = {"raw": True, "decoding_plugin": plugin, "allow_excess_frames": False}
        options[dicom_codecs.ENDS] = self.ends
        if len(wanted) == self.frames and integer(self._dataset, "NumberOfFrames", 1) == self.frames:
            stored, about = codec.as_array(self._dataset, **options)
            stored = stored if self.frames > 1 else stored[None]
            return self._rgb(stored, about)
        return np.stack([self._rgb(*codec.as_array(self._dataset, index=index, **options)) for index in wanted])

    def _rgb(self, stored: Any, about: Any) -> NDArray[Any]:
        photometric = str(about.get("photometric_interpretation"))
        if self._header.samples_per_pixel != 3 or stored.ndim < 3:
            return with_sign(stored, self._header.bits_stored)
        if (photometric in _YBR_FULL) != self._header.photometric.startswith("YBR_FULL") and photometric in (
            *_YBR_FULL,
            "RGB",
        ):
            self.found = "YCbCr" if photometric in _YBR_FULL else "RGB"
        return ybr_to_rgb(stored) if photometric in _YBR_FULL else stored

    def _drop_offsets(self) -> bool:
        """Take away an offset table that may be wrong; frames are then told apart by their markers."""
        data = self._dataset.PixelData
        length = int.from_bytes(data[4:8], "little")
        extended = "ExtendedOffsetTable" in self._dataset
        for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
            if keyword in self._dataset:
                del self._dataset[keyword]
        if data[:4] == FIRST_ITEM and 0 < length <= len(data) - 8:
            self._dataset.PixelData = data[:4] + bytes(4) + data[8 + length :]
            self._dataset["PixelData"].is_undefined_length = True
            return True
        return extended

    def _other_syntax(self) -> bool:
        """Go by the codestream where it is of another codec than the meta information says; say whether it is."""
        actual = syntax_of(bytes(raw_bytes(self._dataset, "PixelData")[:4096]))
        if not actual or str(self._syntax) in (actual, *_ALIKE.get(actual, ())):
            return False
        self._dataset.file_meta = meta_of(actual)
        self._syntax = self._dataset.file_meta.TransferSyntaxUID
        self._check_codec()
        return True

    def _lacks_frames(self) -> bool:
        """Return whether there are fewer fragments than frames."""
        from pydicom.encaps import parse_fragments

        try:
            count, _ = parse_fragments(self._dataset.PixelData)
        except Exception:
            return True
        return count - 1 < self.frames  # the first item is the offset table

    def _cut(self) -> MedclipError:
        what = f": {self.ends.lacking}" if self.ends.lacking else ""
        hint = UNTERMINATED_HINT if self.ends.lacking == NO_END and not self.ends.accept else ""
        return MedclipError(Reason.TRUNCATED, f"the compressed pixel data ends too early{what}.", hint=hint)


def _complete(dataset: Any, header: DicomHeader) -> None:
    """Fill in elements that pydicom demands and whose value is plain."""
    defaults = {
        "SamplesPerPixel": header.samples_per_pixel,
        "PixelRepresentation": int(header.signed),
        "BitsStored": header.bits_stored or header.bits_allocated,
    }
    if header.samples_per_pixel > 1:
        defaults["PlanarConfiguration"] = 0
    own_bytes(dataset, "PixelData")
    for keyword, value in defaults.items():
        if dataset.get(keyword) is None:
            setattr(dataset, keyword, value)
