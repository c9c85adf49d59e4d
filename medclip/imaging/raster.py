"""Read PNG, JPEG, TIFF, GIF, BMP, WebP, JPEG 2000 and MetaImage: bit depths, palettes, transparency, orientation."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from medclip.dicom.codecs.codestream import DataMissingError, decode_waiting, strict
from medclip.dicom.codecs.completeness import NO_END, UNTERMINATED, decode_unterminated
from medclip.dicom.header.elements import quiet
from medclip.dicom.pixels.decoded import Decoded, check_size
from medclip.dicom.pixels.render import make_square
from medclip.errors import MedclipError, Reason, opening
from medclip.files.recognise.sniff import Format
from medclip.files.recognise.tiff_directories import ends_early
from medclip.imaging.intensity import LEAST_PX, has_colours
from medclip.imaging.raster_end import check_png_rows, check_segments, cut, file_lacks, tiff_segments, webp_size
from medclip.sample import Step
from medclip.settings import Settings

_ORIENTATION = 0x0112
_WHITE_IS_ZERO = 0
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_NOT_IN_PILLOW = frozenset({34927, 50001})
"""TIFF compressions (WebP) that Pillow names, but its wheels' libtiff is built without."""
_MOST_PAGES = 32
"""A TIFF of more pages than this is a stack; looking at each would take long."""


def read_raster(path: Path, fmt: Format, settings: Settings, *, grey: bool = False, paper: bool = False) -> Decoded:
    """Read one image: PNG, JPEG, TIFF, GIF, BMP, WebP, JPEG 2000 or a MetaImage of one slice.

    A TIFF of several pages is read where the others are previews of one, at most half as wide and high; an animation
    gives its first frame.

    Args:
        path: The file.
        fmt: Format of the file as sniffed from its bytes; no other decoder is tried.
        settings: Limits; the size is checked from the header before pixels are allocated.
        grey: Whether colour images are returned as luma (C = 1).
        paper: Whether transparent images are composited on white, as what is printed or drawn lies; otherwise on black.

    Returns:
        H x W x 1 or H x W x 3: uint8 as stored for 8-bit images, uint16 or float32 as stored for deeper grey ones.
        Transparent images are composited on black (or white); the EXIF orientation is applied.

    Raises:
        MedclipError: TOO_LARGE, TRUNCATED, CORRUPT, NOT_SUPPORTED_YET (several pages of one size).
    """
    try:
        if fmt is Format.METAIMAGE_2D:
            return _read_metaimage(path, settings, grey=grey)
        with opening(), quiet("PIL"), strict():
            return _read(path, fmt, settings, grey=grey, paper=paper)
    except MedclipError:
        raise
    except (OSError, EOFError) as error:
        if isinstance(error, UnidentifiedImageError) or "truncated" not in str(error).lower():
            raise MedclipError(Reason.CORRUPT, f"the {fmt.upper()} image is damaged and cannot be decoded.") from None
        raise MedclipError(Reason.TRUNCATED, f"the {fmt.upper()} image ends before its pixels do.") from None
    except MemoryError:
        raise MedclipError(Reason.TOO_LARGE, "the image does not fit into memory.") from None
    except Exception:
        raise MedclipError(Reason.CORRUPT, f"the {fmt.upper()} image is damaged and cannot be decoded.") from None


def _read(path: Path, fmt: Format, settings: Settings, *, grey: bool, paper: bool) -> Decoded:
    with path.open("rb") as file:
        if fmt is Format.WEBP:  # its plugin allocates the canvas on opening
            size = webp_size(file.read(30))
            if size is None:
                raise MedclipError(Reason.CORRUPT, "the WEBP image is damaged and cannot be decoded.")
            check_size(size[1], size[0], settings)
            file.seek(0)
        lacking = file_lacks(file, fmt)
        if not lacking and fmt is Format.JPEG:
            try:
                return decode_waiting(
                    file.read(),
                    lambda stream: _decoded(io.BytesIO(stream), path, fmt, settings, grey=grey, paper=paper),
                    _bytes_of,
                )
            except DataMissingError as error:
                raise cut(fmt, str(error)) from None
        if not lacking:
            return _decoded(file, path, fmt, settings, grey=grey, paper=paper)
        if lacking != NO_END or not settings.policy.accept_unterminated:
            raise cut(fmt, lacking)
        try:
            decoded = _unterminated(file, path, fmt, settings, grey=grey, paper=paper)
        except (OSError, ValueError):
            raise cut(fmt, "its data ends early, too") from None
    return decoded._replace(steps=(*decoded.steps, Step("end", UNTERMINATED)))


def _unterminated(file: BinaryIO, path: Path, fmt: Format, settings: Settings, *, grey: bool, paper: bool) -> Decoded:
    """Decode a file without its end marker. Of PNG and GIF Pillow itself knows whether all pixels are there."""
    if fmt not in (Format.JPEG, Format.JPEG2000):
        return _decoded(file, path, fmt, settings, grey=grey, paper=paper)
    return decode_unterminated(
        file.read(),
        lambda stream: _decoded(io.BytesIO(stream), path, fmt, settings, grey=grey, paper=paper),
        _bytes_of,
    )


def _bytes_of(decoded: Decoded) -> bytes:
    return decoded.pixels.tobytes()


def _decoded(file: BinaryIO, path: Path, fmt: Format, settings: Settings, *, grey: bool, paper: bool) -> Decoded:
    try:
        image = _open(file, fmt)
    except (UnidentifiedImageError, SyntaxError, NotImplementedError, KeyError):
        if fmt is not Format.TIFF:
            raise
        if ends_early(file):
            raise MedclipError(Reason.TRUNCATED, "the TIFF image ends before its pixels do.") from None
        return _read_tiff(path, settings, grey=grey)
    with image:
        check_size(*image.size, settings)
        steps: list[Step] = []
        pages: int = getattr(image, "n_frames", 1)
        if fmt is Format.TIFF:
            page = 0 if pages == 1 else _main_page(image, pages, settings, steps)
            if _needs_tifffile(image):
                decoded = _read_tiff(path, settings, grey=grey, page=page)
                return decoded._replace(steps=(*steps, *decoded.steps))
            check_segments(file, *tiff_segments(getattr(image, "tag_v2", {})), settings)
        elif pages > 1:
            steps.append(Step("frame", f"first of {pages}"))
        if fmt is Format.PNG:
            image.load()
            check_png_rows(file, image)
        pixels, coloured = _pixels(image, steps, grey=grey, paper=paper)
    return Decoded(pixels, tuple(steps), f"Pillow {fmt.upper()}", {}, in_colour=coloured)


def _main_page(image: Image.Image, pages: int, settings: Settings, steps: list[Step]) -> int:
    """Turn to the one full-size page of a TIFF whose other pages are previews of it.

    Raises:
        MedclipError: NOT_SUPPORTED_YET if there are several pages of about one size: a stack, not one image.
    """
    sizes: list[tuple[int, int]] = []
    for page in range(min(pages, _MOST_PAGES)):
        image.seek(page)
        sizes.append(image.size)
    main = max(range(len(sizes)), key=lambda page: (sizes[page][0] * sizes[page][1], -page))
    width, height = sizes[main]
    others = [size for page, size in enumerate(sizes) if page != main]
    if pages > _MOST_PAGES or any(2 * size[0] > width or 2 * size[1] > height for size in others):
        raise _stack(pages)
    check_size(width, height, settings)
    image.seek(main)
    steps.append(Step("page", f"{main + 1} of {pages}, the largest; the others are previews"))
    return main


def _stack(pages: int) -> MedclipError:
    return MedclipError(
        Reason.NOT_SUPPORTED_YET,
        f"the TIFF holds a stack of {pages} pages; one image, with or without smaller previews of it, is read.",
        hint="Save the pages as single files, or as a NIfTI volume if they are slices.",
    )


def _open(file: Any, fmt: Format) -> Image.Image:
    """Open with the one plugin that fits.

    Not `Image.open`: its limit on pixels is a global of Pillow, ours is `Settings.max_pixels`.
    """
    from PIL import (
        BmpImagePlugin,
        GifImagePlugin,
        Jpeg2KImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    opener: Mapping[Format, Callable[[Any], Image.Image]] = {
        Format.PNG: PngImagePlugin.PngImageFile,
        Format.JPEG: JpegImagePlugin.jpeg_factory,
        Format.TIFF: TiffImagePlugin.TiffImageFile,
        Format.GIF: GifImagePlugin.GifImageFile,
        Format.BMP: BmpImagePlugin.BmpImageFile,
        Format.WEBP: WebPImagePlugin.WebPImageFile,
        Format.JPEG2000: Jpeg2KImagePlugin.Jpeg2KImageFile,
    }
    if fmt not in opener:
        raise MedclipError(Reason.NOT_SUPPORTED_YET, f"{fmt} is not read as an image.")
    return opener[fmt](file)


def _needs_tifffile(image: Image.Image) -> bool:
    """Return whether Pillow fails or loses something: it misreads deep colour, and deep grey where white is zero."""
    tags: Any = getattr(image, "tag_v2", {})
    if tiff_segments(tags)[2] in _NOT_IN_PILLOW:
        return True
    bits = tags.get(258, (1,))
    deep = max(bits if isinstance(bits, tuple) else (bits,)) > 8
    return deep and (tags.get(262) == _WHITE_IS_ZERO or image.mode not in _DEEP_MODES)


def _pixels(image: Image.Image, steps: list[Step], *, grey: bool, paper: bool) -> tuple[NDArray[Any], bool]:
    """Decode a Pillow image into H x W x C, and tell whether colours were left out."""
    coloured = False
    if grey and image.format == "JPEG" and image.mode == "RGB":
        coloured = _jpeg_has_colours(image)
        image.draft("L", image.size)  # libjpeg then skips the chroma channels altogether
    orientation = image.getexif().get(_ORIENTATION, 1)
    image.load()
    if orientation in range(2, 9):
        image = ImageOps.exif_transpose(image)
        steps.append(Step("orientation", f"EXIF {orientation}"))
    if image.mode in _DEEP_MODES:
        return _deep(image), False
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = _composited(image, 255 if paper else 0)
        steps.append(Step("transparency", f"composited on {'white' if paper else 'black'}"))
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
        coloured = has_colours(np.asarray(image))
        image = image.convert("L")
        steps.append(Step("luma", "RGB averaged to grey"))
    array = np.asarray(image)
    return array[:, :, None] if array.ndim == 2 else array, coloured


def _jpeg_has_colours(image: Image.Image) -> bool:
    """Return whether a JPEG that is about to be decoded to luma alone shows colours; down to an eighth of its size."""
    file: Any = getattr(image, "fp", None)
    begin = file.tell()
    file.seek(0)
    small = _open(io.BytesIO(file.read()), Format.JPEG)
    file.seek(begin)
    small.draft("RGB", (LEAST_PX, LEAST_PX))
    return has_colours(np.asarray(small))


def _composited(image: Image.Image, level: int) -> Image.Image:
    rgba = image.convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", rgba.size, (level, level, level, 255)), rgba)
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
        raise MedclipError(Reason.NON_FINITE, "the image holds no finite value.")
    return values


def _read_tiff(path: Path, settings: Settings, *, grey: bool, page: int | None = None) -> Decoded:
    """Read what Pillow cannot: deep colour, floating point, unusual compression.

    `page` is the one to read; None where Pillow could not tell, and there must be only one.
    """
    import tifffile

    with quiet("tifffile"), tifffile.TiffFile(path) as tiff:
        if not tiff.pages:
            raise MedclipError(Reason.CORRUPT, "the TIFF holds no image.")
        if page is None and len(tiff.pages) > 1:
            raise _stack(len(tiff.pages))
        main: Any = tiff.pages[page or 0]
        check_size(main.imagewidth, main.imagelength, settings)
        if main.imagedepth != 1 or main.samplesperpixel not in (1, 3, 4):
            raise MedclipError(Reason.NOT_SUPPORTED_YET, "the file is a TIFF with unusual channels.")
        with path.open("rb") as file:
            tables = main.jpegtables or b""
            rows, columns = main.imagelength, main.imagewidth
            place = (
                (main.tilelength, main.tilewidth) if main.is_tiled else (min(main.rowsperstrip or rows, rows), columns)
            )
            check_segments(file, main.dataoffsets, main.databytecounts, int(main.compression), tables, place, settings)
        try:
            array = np.asarray(main.asarray())
        except ValueError as error:
            if "requires the 'imagecodecs' package" in str(error):
                raise MedclipError(
                    Reason.MISSING_CODEC,
                    "the TIFF's compression needs another package.",
                    hint="Run: pip install imagecodecs",
                ) from None
            raise
        inverted = main.photometric == _WHITE_IS_ZERO
    if array.ndim == 3 and array.shape[0] == main.samplesperpixel and main.planarconfig == 2:
        array = np.moveaxis(array, 0, -1)
    array = _native(array[:, :, None] if array.ndim == 2 else array[:, :, :3])
    steps: list[Step] = []
    if inverted:
        top = np.iinfo(array.dtype).max if array.dtype.kind == "u" else array.max()
        array = (top - array).astype(array.dtype)
        steps.append(Step("polarity", "white is zero, inverted"))
    array, coloured = _eight_bit_colour(array, steps, grey=grey)
    return Decoded(array, tuple(steps), "tifffile", {}, in_colour=coloured)


def _eight_bit_colour(array: NDArray[Any], steps: list[Step], *, grey: bool) -> tuple[NDArray[Any], bool]:
    """Bring colour to 8 bits, or to luma; tell whether colours were left out."""
    if array.shape[2] != 3:
        return array, False
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
        steps.append(Step("depth", "16 bit to 8 (high byte)"))
    if not grey:
        return array, False
    coloured = array.dtype == np.uint8 and has_colours(array)
    luma = array @ np.array([0.299, 0.587, 0.114], np.float32)
    array = (luma + 0.5).astype(np.uint8)[:, :, None] if array.dtype == np.uint8 else luma[:, :, None]
    steps.append(Step("luma", "RGB averaged to grey"))
    return array, coloured


def _read_metaimage(path: Path, settings: Settings, *, grey: bool) -> Decoded:
    """Read a MetaImage of one slice; of pixels that are not square the coarser axis gets more of them."""
    from medclip.imaging.volume.metaimage import read_metaimage_2d

    stored, spacing = read_metaimage_2d(path, settings)
    if stored.shape[2] not in (1, 3, 4) or (stored.shape[2] > 1 and stored.dtype not in (np.uint8, np.uint16)):
        raise MedclipError(
            Reason.NOT_SUPPORTED_YET, "the MetaImage holds several values at each place that are no 8 or 16 bit colour."
        )
    steps: list[Step] = []
    array, coloured = _eight_bit_colour(_native(stored[:, :, :3]), steps, grey=grey)
    size = array.shape[:2]
    if spacing is not None and spacing[0] != spacing[1]:
        shown = array if array.dtype == np.uint8 else array.astype(np.float32)
        squared, spacing = make_square(shown[None], spacing, spacing[0] / spacing[1], settings, steps)
        array = squared[0]
    stored_size = None if array.shape[:2] == size else size
    return Decoded(
        array, tuple(steps), "MetaImage", {}, spacing_mm=spacing, in_colour=coloured, stored_size=stored_size
    )
