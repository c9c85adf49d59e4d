"""Read PNG, JPEG and TIFF pictures: bit depths, palettes, transparency, orientation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from medclip.errors import MedclipError, Reason
from medclip.files.quiet import quiet
from medclip.files.sniff import Format
from medclip.imaging.decoded import Decoded, check_size
from medclip.sample import Step
from medclip.settings import Settings

_ORIENTATION = 0x0112
_WHITE_IS_ZERO = 0
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def read_raster(path: Path, fmt: Format, settings: Settings, *, grey: bool = False) -> Decoded:
    """Read one PNG, JPEG or TIFF picture.

    Args:
        path: The file.
        fmt: Its format as sniffed from the bytes; no other decoder is tried.
        settings: Limits; the size is checked from the header before pixels are allocated.
        grey: Give luma (C = 1) for colour pictures.

    Returns:
        H x W x 1 or H x W x 3: uint8 as stored for 8-bit pictures, uint16 or float32 as stored for deeper grey ones.
        Transparent pictures are composited on black; the EXIF orientation is applied.

    Raises:
        MedclipError: TOO_LARGE, TRUNCATED, CORRUPT, NOT_SUPPORTED_YET (several pages).
    """
    try:
        with quiet("PIL"):
            return _read(path, fmt, settings, grey=grey)
    except MedclipError:
        raise
    except PermissionError:
        raise MedclipError(Reason.PERMISSION_DENIED, "The file may not be read.") from None
    except FileNotFoundError:
        raise MedclipError(Reason.MISSING_FILE, "The file does not exist any more.") from None
    except (OSError, EOFError) as error:
        if isinstance(error, UnidentifiedImageError) or "truncated" not in str(error).lower():
            raise MedclipError(Reason.CORRUPT, f"The {fmt.upper()} picture is damaged and cannot be decoded.") from None
        raise MedclipError(Reason.TRUNCATED, f"The {fmt.upper()} picture ends before its pixels do.") from None
    except MemoryError:
        raise MedclipError(Reason.TOO_LARGE, "The picture does not fit into memory.") from None
    except Exception:
        raise MedclipError(Reason.CORRUPT, f"The {fmt.upper()} picture is damaged and cannot be decoded.") from None


def _read(path: Path, fmt: Format, settings: Settings, *, grey: bool) -> Decoded:
    with path.open("rb") as file:
        try:
            image = _open(file, fmt)
        except (UnidentifiedImageError, SyntaxError, NotImplementedError, KeyError):
            if fmt is not Format.TIFF:
                raise
            return _read_tiff(path, settings, grey=grey)
        with image:
            check_size(*image.size, settings)
            if fmt is Format.TIFF:
                if getattr(image, "n_frames", 1) > 1:
                    raise MedclipError(
                        Reason.NOT_SUPPORTED_YET,
                        "The file is a TIFF of several pages; this version reads single images.",
                    )
                if _needs_tifffile(image):
                    return _read_tiff(path, settings, grey=grey)
            steps: list[Step] = []
            pixels = _pixels(image, steps, grey=grey)
    return Decoded(pixels, tuple(steps), f"Pillow {fmt.upper()}", {})


def _open(file: Any, fmt: Format) -> Image.Image:
    """Open with the one plugin that fits.

    Not `Image.open`: its limit on pixels is a global of Pillow, ours is `Settings.max_pixels`.
    """
    from PIL import JpegImagePlugin, PngImagePlugin, TiffImagePlugin

    if fmt is Format.PNG:
        return PngImagePlugin.PngImageFile(file)
    if fmt is Format.JPEG:
        return JpegImagePlugin.jpeg_factory(file)
    if fmt is Format.TIFF:
        return TiffImagePlugin.TiffImageFile(file)
    raise MedclipError(Reason.NOT_SUPPORTED_YET, f"{fmt} is not read as a picture.")


def _needs_tifffile(image: Image.Image) -> bool:
    """Say whether Pillow would lose something: it misreads deep colour, and deep grey where white is zero."""
    tags: Any = getattr(image, "tag_v2", {})
    bits = tags.get(258, (1,))
    deep = max(bits if isinstance(bits, tuple) else (bits,)) > 8
    return deep and (tags.get(262) == _WHITE_IS_ZERO or image.mode not in _DEEP_MODES)


def _pixels(image: Image.Image, steps: list[Step], *, grey: bool) -> NDArray[Any]:
    """Decode a Pillow image into H x W x C."""
    if grey and image.format == "JPEG" and image.mode == "RGB":
        image.draft("L", image.size)  # libjpeg then skips the chroma channels altogether
    orientation = image.getexif().get(_ORIENTATION, 1)
    image.load()
    if orientation in range(2, 9):
        image = ImageOps.exif_transpose(image)
        steps.append(Step("orientation", f"EXIF {orientation}"))
    if image.mode in _DEEP_MODES:
        return _deep(image)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = _on_black(image)
        steps.append(Step("transparency", "composited on black"))
    if image.mode == "P":
        image = image.convert("RGB")
        steps.append(Step("palette", "to RGB"))
    elif image.mode == "1":
        image = image.convert("L")
        steps.append(Step("depth", "1 bit to 8"))
    elif image.mode not in ("L", "RGB"):
        steps.append(Step("colour", f"{image.mode} to RGB"))
        image = image.convert("RGB")
    if grey and image.mode != "L":
        image = image.convert("L")
        steps.append(Step("luma", "RGB averaged to grey"))
    array = np.asarray(image)
    return array[:, :, None] if array.ndim == 2 else array


def _on_black(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
    flat = Image.alpha_composite(black, rgba)
    return flat.convert("L") if image.mode in ("L", "LA", "La", "1", "I;16", "I") else flat.convert("RGB")


def _deep(image: Image.Image) -> NDArray[Any]:
    array = np.asarray(image)[:, :, None]
    if array.dtype.kind in "ui" and array.dtype.itemsize > 2 and array.min() >= 0 and array.max() <= 65535:
        return array.astype(np.uint16)
    return _native(array)


def _native(array: NDArray[Any]) -> NDArray[Any]:
    """Bring an array to uint8, uint16 or float32."""
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "u" and array.dtype.itemsize <= 2:
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    values = array.astype(np.float32)
    if not np.isfinite(values).any():
        raise MedclipError(Reason.NON_FINITE, "The picture holds no finite value.")
    return values


def _read_tiff(path: Path, settings: Settings, *, grey: bool) -> Decoded:
    """Read what Pillow cannot: deep colour, floating point, unusual compression."""
    import tifffile

    with quiet("tifffile"), tifffile.TiffFile(path) as tiff:
        if not tiff.pages:
            raise MedclipError(Reason.CORRUPT, "The TIFF holds no picture.")
        if len(tiff.pages) > 1:
            raise MedclipError(
                Reason.NOT_SUPPORTED_YET, "The file is a TIFF of several pages; this version reads single images."
            )
        page: Any = tiff.pages[0]
        check_size(page.imagewidth, page.imagelength, settings)
        if page.imagedepth != 1 or page.samplesperpixel not in (1, 3, 4):
            raise MedclipError(Reason.NOT_SUPPORTED_YET, "The file is a TIFF with unusual channels.")
        try:
            array = np.asarray(page.asarray())
        except ValueError as error:
            if "requires the 'imagecodecs' package" in str(error):
                raise MedclipError(
                    Reason.MISSING_CODEC,
                    "The TIFF's compression needs another package.",
                    hint="Run: pip install imagecodecs",
                ) from None
            raise
        inverted = page.photometric == _WHITE_IS_ZERO
    if array.ndim == 3 and array.shape[0] == page.samplesperpixel and page.planarconfig == 2:
        array = np.moveaxis(array, 0, -1)
    array = _native(array[:, :, None] if array.ndim == 2 else array[:, :, :3])
    steps: list[Step] = []
    if inverted:
        top = np.iinfo(array.dtype).max if array.dtype.kind == "u" else array.max()
        array = (top - array).astype(array.dtype)
        steps.append(Step("polarity", "white is zero, inverted"))
    if array.shape[2] == 3:
        if array.dtype == np.uint16:
            array = (array >> 8).astype(np.uint8)
            steps.append(Step("depth", "16 bit to 8 (high byte)"))
        if grey:
            luma = array @ np.array([0.299, 0.587, 0.114], np.float32)
            array = (luma + 0.5).astype(np.uint8)[:, :, None] if array.dtype == np.uint8 else luma[:, :, None]
            steps.append(Step("luma", "RGB averaged to grey"))
    return Decoded(array, tuple(steps), "tifffile", {})
