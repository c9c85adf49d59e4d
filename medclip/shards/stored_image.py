"""The stored image of a sample: written as PNG or JPEG, read from PNG, JPEG or WebP."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from medclip.errors import MedclipError, Reason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
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
