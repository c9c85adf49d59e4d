"""How images, volumes, loops and ECGs lie in shards, beside the sample's JSON, which says what they are.

Images are written as PNG or JPEG, and read from PNG, JPEG or WebP. Arrays have NumPy's format 1.0, in C order,
little-endian, never a pickle: WebDataset and anything else that knows NumPy read them; what axes measure and values
mean stands in the JSON, under `volume` or `signal`.

An ECG is the record as its file has it, in whole microvolts: at its own rate, unfiltered, with its gaps, only put into
the order of the twelve leads. What a model is shown (rate, length, filters, leads that are computed from others) is
made of it by the functions that make it of a file.
"""

from __future__ import annotations

import ast
import io
from collections.abc import Container, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.recording import Recording, check_rate, recording_of, stored_values, whole_microvolts
from medclip.imaging.ecg.twelve_leads import canonical, ordered
from medclip.imaging.volume.voxels import DTYPES, Voxels
from medclip.sample import Kind

if TYPE_CHECKING:
    from PIL import Image

Format = Literal["png", "jpeg"]
EXTENSIONS = ("png", "jpg", "jpeg", "webp")
"""Member names of images, without the key; the first that a sample has is its image."""
STORED_AS: Mapping[str, str] = {"png": "png", "jpeg": "jpg"}
"""Extension by format."""
SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")
"""First bytes of a PNG, JPEG or WebP file."""
DRAFT_GAP = 2
"""A JPEG is decoded at a half, a quarter or an eighth where that is still this many times what is wanted."""
_READ = ("PNG", "JPEG", "WEBP")


def encode(pixels: NDArray[np.uint8], stored: Format, quality: int) -> bytes:
    """Write H x W x C uint8 pixels, C = 1 or 3, as an image without any metadata.

    Args:
        pixels: Pixels to store.
        stored: "png" (lossless) or "jpeg" (a third to a tenth of the bytes; colour at full resolution, 4:4:4).
        quality: Quality of JPEG, 1 to 100.
    """
    from PIL import Image

    buffer = io.BytesIO()
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    if stored == "png":
        image.save(buffer, "PNG", compress_level=6)
    else:
        image.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def decode(data: bytes, wanted_px: int | None = None, gap: float = DRAFT_GAP) -> Image.Image:
    """Decode an image.

    Args:
        data: Bytes of a PNG, JPEG or WebP file.
        wanted_px: Longest side that is needed in the end. A JPEG at least 4 times as large is decoded at a half, one at
            least 8 times as large at a quarter, so that at least `DRAFT_GAP` times the wanted side is left to be
            resampled: the decoder leaves the high frequencies out, which no antialiased resampling would have kept. A
            side that cannot be divided grows by less than one pixel of the fraction (0.1 % of a 1,023-px side).
            None for all pixels. The result depends on nothing but the bytes and these numbers.
        gap: Times the wanted side that are left. With 1 a JPEG twice as large is decoded at a half already, which takes
            half the time and costs some sharpness.

    Returns:
        In mode L where the file is grey, else RGB.

    Raises:
        MedclipError: CORRUPT, TOO_LARGE, or NOT_SUPPORTED_YET for more than 8 bits a channel.
    """
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(data), formats=_READ)
        if image.mode.startswith(("I", "F")):
            raise MedclipError(Reason.NOT_SUPPORTED_YET, "the image has more than 8 bits a channel.")
        if wanted_px is not None and image.format == "JPEG":
            factor = gap * wanted_px / max(image.size)
            image.draft(None, (max(1, round(image.width * factor)), max(1, round(image.height * factor))))
        if image.mode not in ("L", "RGB"):
            return image.convert("L" if image.mode == "1" else "RGB")
        image.load()
        return image
    except MedclipError:
        raise
    except (MemoryError, Image.DecompressionBombError) as e:
        raise MedclipError(Reason.TOO_LARGE, "the image does not fit into memory.") from e
    except Exception as e:  # Pillow's decoders raise whatever they meet first in broken bytes
        raise MedclipError(Reason.CORRUPT, f"the image cannot be decoded ({type(e).__name__}).") from e


def size_px(data: bytes) -> tuple[int, int]:
    """Return width and height of an image; only its head is read.

    Raises:
        MedclipError: CORRUPT.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=_READ) as image:
            return image.size
    except Exception as e:  # as in `decode`
        raise MedclipError(Reason.CORRUPT, f"the image cannot be read ({type(e).__name__}).") from e


EXTENSION = "npy"
"""Of the member."""
_MAGIC = b"\x93NUMPY\x01\x00"
_KEYS = {"descr", "fortran_order", "shape"}


def encode_array(values: NDArray[Any]) -> bytes:
    """Write an array."""
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, values, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def decode_array(data: bytes, dtypes: Container[str]) -> NDArray[Any]:
    """Read what `encode_array` wrote, without NumPy's reader, which copies; it cannot be written to.

    Raises:
        ValueError, TypeError, SyntaxError, IndexError: The bytes are something else.
    """
    if not data.startswith(_MAGIC):
        raise ValueError("no NumPy array of format 1.0")
    start = len(_MAGIC) + 2 + int.from_bytes(data[len(_MAGIC) : len(_MAGIC) + 2], "little")
    header = ast.literal_eval(data[len(_MAGIC) + 2 : start].decode("latin-1"))
    if set(header) != _KEYS or header["fortran_order"]:
        raise ValueError("not in C order")
    dtype = np.dtype(header["descr"])
    if dtype.hasobject or dtype.name not in dtypes or not dtype.isnative:
        raise ValueError(f"values of the type {dtype.name}")
    return np.frombuffer(data, dtype, offset=start).reshape([int(length) for length in header["shape"]])


VOLUME_FACTS = "volume"
"""Key of the JSON member."""
MAX_BYTES = 512 << 20
"""Of one sample: training reads a sample as one piece. A CT of 512 x 512 pixels may have 1,024 slices."""


def encode_voxels(voxels: Voxels) -> bytes:
    """Write the values as a NumPy array.

    Raises:
        MedclipError: TOO_LARGE beyond `MAX_BYTES`.
    """
    values = voxels.values
    if values.nbytes > MAX_BYTES:
        size = " x ".join(map(str, values.shape))
        raise MedclipError(
            Reason.TOO_LARGE,
            f"the {voxels.kind} of {size} takes {values.nbytes >> 20:,} MB; a sample may take {MAX_BYTES >> 20}.",
            hint="Cut it into parts, or store it at a coarser spacing.",
        )
    return encode_array(values)


def facts_of(voxels: Voxels) -> dict[str, Any]:
    """Return what the JSON says of them."""
    return {
        "kind": str(voxels.kind),
        "spacing_mm": None if voxels.spacing_mm is None else list(voxels.spacing_mm),
        "plane": voxels.plane,
        "unit": voxels.unit,
        "frame_ms": voxels.frame_ms,
    }


def decode_voxels(data: bytes, facts: Mapping[str, Any]) -> Voxels:
    """Read what `encode_voxels` and `facts_of` wrote; the values share the memory of `data` and cannot be written to.

    Raises:
        MedclipError: CORRUPT for anything else.
    """
    try:
        values, kind = decode_array(data, DTYPES), Kind(facts["kind"])
        spacing, frame_ms = facts["spacing_mm"], facts["frame_ms"]
        if values.ndim != (3 if kind is Kind.VOLUME else 4) or not values.size:
            raise ValueError("another number of axes")
        if (kind is Kind.VOLUME) != (spacing is not None) or kind not in (Kind.VOLUME, Kind.CINE):
            raise ValueError("no spacing")
        spacing_mm = None if spacing is None else tuple(float(mm) for mm in spacing)
        if spacing_mm is not None and (len(spacing_mm) != 3 or not all(0 < mm < np.inf for mm in spacing_mm)):
            raise ValueError("no spacing")
        return Voxels(
            values,
            kind,
            str(facts["unit"]),
            facts["plane"],
            None if spacing_mm is None else (spacing_mm[0], spacing_mm[1], spacing_mm[2]),
            None if frame_ms is None else float(frame_ms),
        )
    except (KeyError, ValueError, TypeError, SyntaxError, IndexError) as e:
        raise MedclipError(Reason.CORRUPT, f"the stored volume cannot be read ({type(e).__name__}: {e}).") from e


SIGNAL_FACTS = "signal"
"""Key of the JSON member."""
MAX_S = 300.0
"""Of a longer record its middle is stored: no model is shown more, and a day of twelve leads takes a gigabyte."""
_DTYPES = ("int16", "int32")


def encode_signal(recording: Recording) -> tuple[bytes, dict[str, Any]]:
    """Write a record.

    Args:
        recording: Recording as its file has it.

    Returns:
        The array, int16 (int32 where offsets go beyond 32 mV) [12, T] in microvolts, the lowest number of its type
        where a sample is missing; and what the JSON says of it: rate, length, the leads that are stored, and which of
        the twelve a model finds over the whole of what is stored (mask), some of them computed (derived).

    Raises:
        MedclipError: NOT_AN_IMAGE for a record of none of the twelve leads, CONSTANT_IMAGE where none shows anything.
    """
    kept = _middle(ordered(recording))
    if not kept.leads:
        raise MedclipError(Reason.NOT_AN_IMAGE, "the record has none of the twelve leads.")
    signal = canonical(whole_microvolts(kept))
    if not signal.mask.any():
        raise MedclipError(
            Reason.CONSTANT_IMAGE, "none of the record's leads shows anything: they are flat or missing."
        )
    facts = {
        "sampling_hz": kept.sampling_hz,
        "samples": kept.values_mv.shape[1],
        "leads": list(kept.leads),
        "mask": [bool(present) for present in signal.mask],
        "derived": list(signal.derived),
        "stored_hz": recording.stored_hz,
        "stored_samples": recording.stored_samples,
    }
    return encode_array(stored_values(kept)), facts


def decode_signal(data: bytes, facts: Mapping[str, Any]) -> Recording:
    """Read what `encode_signal` wrote.

    Raises:
        MedclipError: CORRUPT for anything else.
    """
    try:
        leads, hz = tuple(facts["leads"]), check_rate(float(facts["sampling_hz"]))
        stored = decode_array(data, _DTYPES)
        if stored.shape != (len(TWELVE), facts["samples"]) or not stored.shape[1]:
            raise ValueError("another number of leads or samples")
        if not leads or leads != tuple(lead for lead in TWELVE if lead in leads):
            raise ValueError("other leads")
        return recording_of(stored, leads, hz)
    except (KeyError, ValueError, TypeError, SyntaxError, IndexError, MedclipError) as e:
        raise MedclipError(Reason.CORRUPT, f"the stored ECG cannot be read ({type(e).__name__}: {e}).") from e


def _middle(recording: Recording) -> Recording:
    """Cut a long record to its middle. As much goes on either side, so that its middle stays where it was."""
    samples = recording.values_mv.shape[1]
    side = max(0, int((samples - MAX_S * recording.sampling_hz) // 2))
    return replace(recording, values_mv=np.ascontiguousarray(recording.values_mv[:, side : samples - side]))
