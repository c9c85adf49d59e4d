"""TIFFs that OpenSlide refuses, through tifffile: OME-TIFF, untiled, grey, 16-bit, several channels, JPEG 2000, WebP.

Of several images in the file the largest is the slide. Of a stack the middle focal plane and the first time point are
read. A file that refers to others is read on its own. How channels become colours: `channels.ToRgb`.
"""

from __future__ import annotations

import math
import os
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.header.elements import quiet
from medclip.errors import MedclipError, Reason
from medclip.imaging.raster_end import WITH_END, check_stated_size, ends_in_zeros
from medclip.imaging.slides.readers.backend import (
    WHITE,
    Level,
    SlideFacts,
    SlideSpec,
    ToRgb,
    limits_of,
    missing,
    notes_of,
)
from medclip.imaging.slides.readers.jpeg_tiles import (
    Decode,
    StoredBytes,
    TileCache,
    TiledLevel,
    TileLayout,
    decode_whole,
    jpeg_tiles,
)

_LONGEST = 32_000_000
"""Characters of XML that are read; plates with thousands of images have a few millions."""
_TO_UM = {"nm": 1e-3, "µm": 1.0, "um": 1.0, "micron": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6, "å": 1e-4, "in": 25400.0}
_NAMES = {"nanometer": "nm", "micrometer": "µm", "millimeter": "mm", "centimeter": "cm", "meter": "m", "inch": "in"}


def ome_mpp(text: str | None, number: int) -> tuple[float, float] | None:
    """Read PhysicalSizeY and PhysicalSizeX of one image in micrometres.

    Args:
        text: The XML. One that declares entities or a document type is not read: OME needs neither, and they are how
            XML refers to other files or grows without bounds.
        number: Number of the image, from 0.

    Returns:
        Row and column size; None where they are not stated, or not in a unit of length.
    """
    if not text or len(text) > _LONGEST or "<!DOCTYPE" in text or "<!ENTITY" in text:
        return None
    try:
        root = ElementTree.fromstring(text.encode())  # noqa: S314 - without entities, and it never fetches anything
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError):
        return None
    elements = [element for element in root.iter() if element.tag.rpartition("}")[2] == "Pixels"]
    if number >= len(elements):
        return None
    rows, columns = (_size(elements[number].attrib, axis) for axis in "YX")
    return (rows, columns) if min(rows, columns) > 0 and max(rows, columns) < 1e6 else None


def _size(attributes: dict[str, str], axis: str) -> float:
    """Return one side in µm, 0 where it is not known."""
    # The Greek mu and the micro sign are two characters; both are in use.
    unit = attributes.get(f"PhysicalSize{axis}Unit", "µm").strip().lower().replace("μ", "µ")
    unit = unit.replace("metre", "meter").removesuffix("s")
    factor = _TO_UM.get(_NAMES.get(unit, unit), 0.0)
    try:
        size = float(attributes.get(f"PhysicalSize{axis}", "0")) * factor
    except ValueError:
        return 0.0
    return size if math.isfinite(size) else 0.0


_JPEG, _WHITE_IS_ZERO, _PALETTE, _YCBCR, _SEPARATE = 7, 0, 3, 6, 2


class TiffBackend:
    """An open TIFF.

    Args:
        spec: Path of the TIFF and limits.

    Raises:
        MedclipError: TRUNCATED or CORRUPT if its directories cannot be read; NOT_SUPPORTED_YET for other layouts.
    """

    def __init__(self, spec: SlideSpec) -> None:
        import tifffile

        self._file: int | None = None
        self._max_pixels = spec.max_pixels
        self._unterminated = spec.accept_unterminated
        cache = TileCache(spec.cache_bytes)
        try:
            with quiet("tifffile"), tifffile.TiffFile(spec.paths[0], _multifile=False) as tiff:
                if not len(tiff.pages) or not tiff.series:
                    raise MedclipError(Reason.TRUNCATED, "the TIFF ends before its first directory.")
                number, series = _largest(tiff.series)
                pages = [_pages(level) for level in series.levels]
                self._file = os.open(spec.paths[0], os.O_RDONLY)
                self._planes = [self._open_level(i, page, cache) for i, page in enumerate(pages)]
                mpp = ome_mpp(tiff.ome_metadata, number) if tiff.is_ome else _tag_mpp(pages[0][0])
            finest = series.levels[0]
            sizes: dict[str, int] = dict(zip(finest.axes, finest.shape, strict=True))
            first = pages[0][0]
            levels = tuple(Level(int(page[0].imagelength), int(page[0].imagewidth)) for page in pages)
            channels = sum(plane.channels for plane in self._planes[0])
            self._to_rgb = self._colours(first, levels[-1], channels)
        except MedclipError:
            self.close()
            raise
        except Exception:  # tifffile raises many types on damaged directories; their texts may quote tags
            self.close()
            raise MedclipError(Reason.CORRUPT, "the TIFF is damaged: its directories cannot be read.") from None
        notes = notes_of(self._to_rgb.note(channels), num_planes=sizes.get("Z", 1), num_times=sizes.get("T", 1))
        self.facts = SlideFacts(levels, mpp, {}, notes=notes, decoder="tifffile")

    def read_level(self, level: int, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        """Read a rectangle of one level."""
        planes = self._planes[level]
        rgb = self._to_rgb(self._stacked(planes, top, left, height, width))
        area = planes[0].layout
        inside = top >= 0 and left >= 0 and top + height <= area.height_px and left + width <= area.width_px
        if not inside:  # outside is white whatever white is in the file's own values
            rgb = np.array(rgb)
            rgb[: max(0, -top)] = WHITE
            rgb[max(0, area.height_px - top) :] = WHITE
            rgb[:, : max(0, -left)] = WHITE
            rgb[:, max(0, area.width_px - left) :] = WHITE
        return rgb

    def read_associated(self, name: str) -> NDArray[np.uint8]:
        """Nothing is known to be label or macro in these files."""
        raise MedclipError(Reason.WRONG_USE, "this TIFF names no images beside the slide.")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
        self._file = None

    def _open_level(self, level: int, pages: list[Any], cache: TileCache) -> list[TiledLevel]:
        """Make a reader for each directory, and each plane of a directory, of a level: together its channels."""
        assert self._file is not None
        planes: list[TiledLevel] = []
        if not _is_known(pages[0].compression):
            raise MedclipError(Reason.NOT_SUPPORTED_YET, "the TIFF is compressed in a way that nothing here reads.")
        for channel, page in enumerate(pages):
            height, width = int(page.imagelength), int(page.imagewidth)
            layout = TileLayout(height, width, *_tile_size(page))
            if layout.tile_height * layout.tile_width > self._max_pixels:
                raise MedclipError(
                    Reason.TOO_LARGE,
                    "the TIFF is stored in pieces with more pixels than the limit; convert it to tiles.",
                )
            stored = StoredBytes(self._file, page.dataoffsets, page.databytecounts)
            separate = page.planarconfig == _SEPARATE and page.samplesperpixel > 1
            samples = 1 if separate else page.samplesperpixel
            for plane in range(page.samplesperpixel if separate else 1):
                first = plane * layout.rows * layout.columns
                decode = _decoder(page, stored, layout, first, unterminated=self._unterminated)
                planes.append(TiledLevel((level, channel, plane), layout, decode, cache, samples, page.dtype))
        if len({(plane.layout.height_px, plane.layout.width_px) for plane in planes}) != 1:
            raise MedclipError(Reason.NOT_SUPPORTED_YET, "the TIFF's channels differ in size.")
        return planes

    def _stacked(self, planes: list[TiledLevel], top: int, left: int, height: int, width: int) -> NDArray[Any]:
        used = planes[:3]
        fill = WHITE if planes[0].dtype == np.uint8 else 0
        regions = [plane.region(top, left, height, width, fill) for plane in used]
        return regions[0] if len(regions) == 1 else np.concatenate(regions, axis=2)

    def _colours(self, page: Any, coarsest: Level, channels: int) -> ToRgb:
        inverted = page.photometric == _WHITE_IS_ZERO
        if page.photometric == _PALETTE and channels == 1 and page.colormap is not None and page.dtype.kind == "u":
            return ToRgb(palette=(page.colormap >> 8).astype(np.uint8).T)
        if page.dtype == np.uint8 or page.dtype == np.bool_:
            return ToRgb(inverted=inverted)
        if coarsest.height_px * coarsest.width_px > self._max_pixels:
            raise MedclipError(Reason.TOO_LARGE, "the TIFF has no overview to take its range of values from.")
        overview = self._stacked(self._planes[-1], 0, 0, coarsest.height_px, coarsest.width_px)
        return ToRgb(limits_of([overview[:, :, i] for i in range(min(3, overview.shape[2]))]), inverted)


def _is_known(compression: int) -> bool:
    import tifffile

    try:
        tifffile.COMPRESSION(compression)
    except ValueError:
        return False
    return True


def _largest(series: Any) -> tuple[int, Any]:
    """Choose the image with the most pixels; the first of equals."""

    def area(item: tuple[int, Any]) -> int:
        page = next((page for page in item[1].pages if page is not None), None)
        return 0 if page is None else page.imagelength * page.imagewidth

    return max(enumerate(series), key=area)


def _pages(level: Any) -> list[Any]:
    """List the directories that hold the channels of a level, at the first time and the middle focus."""
    pages = [None if page is None else page.aspage() for page in level.pages]
    first = pages[0] if pages else None
    if first is None:
        raise MedclipError(Reason.TRUNCATED, "the TIFF's first directory is missing.")
    num_axes = len(first.shape)
    axes, shape = level.axes[:-num_axes], level.shape[:-num_axes]
    if int(np.prod(shape, dtype=np.int64)) != len(pages) or first.imagedepth != 1:
        raise MedclipError(Reason.NOT_SUPPORTED_YET, "the TIFF stores a stack in a way that is not read as a slide.")
    grid = np.arange(len(pages)).reshape(shape)
    for axis in reversed(range(len(axes))):
        if axes[axis] != "C":
            grid = grid.take(shape[axis] // 2 if axes[axis] == "Z" else 0, axis=axis)
    chosen = [pages[index] for index in np.atleast_1d(grid).ravel()]
    if any(page is None for page in chosen):
        raise MedclipError(Reason.TRUNCATED, "the TIFF lacks a directory of one of its channels.")
    return chosen


def _tile_size(page: Any) -> tuple[int, int]:
    if page.is_tiled:
        return int(page.tilelength), int(page.tilewidth)
    return int(min(page.rowsperstrip or page.imagelength, page.imagelength)), int(page.imagewidth)


def _decoder(page: Any, stored: StoredBytes, layout: TileLayout, offset: int, *, unterminated: bool) -> Decode:
    """Make the decoder of one plane: turbo JPEG where it applies, tifffile's own codecs otherwise."""
    plain = page.compression == _JPEG and page.samplesperpixel == 3 and page.planarconfig != _SEPARATE
    if plain and page.bitspersample == 8 and page.is_tiled:
        colour = "YCBCR" if page.photometric == _YCBCR else "RGB"
        return jpeg_tiles(stored, layout, page.jpegtables, colour, unterminated=unterminated)

    def decode(index: int) -> NDArray[Any] | None:
        data = stored.read(offset + index)
        if data is None:
            return None
        if ends_in_zeros(data, int(page.compression)):
            raise MedclipError(Reason.TRUNCATED, "a stored part of the TIFF holds zeros where its data goes on.")

        check_stated_size(data, layout.tile_height, layout.tile_width)

        def decode_segment(stream: bytes) -> NDArray[Any]:
            return page.decode(stream, offset + index, jpegtables=page.jpegtables)[0][0]

        try:
            with quiet("tifffile"):
                if page.compression not in WITH_END:
                    return decode_segment(data)
                return decode_whole(data, decode_segment, unterminated=unterminated)
        except MedclipError:
            raise
        except ImportError:
            raise missing("imagecodecs") from None
        except ValueError as error:
            if "requires the 'imagecodecs' package" in str(error):
                raise missing("imagecodecs") from None
            raise _damaged() from None
        except Exception:  # each codec has an error type of its own
            raise _damaged() from None

    return decode


def _damaged() -> MedclipError:
    return MedclipError(Reason.CORRUPT, "a stored part of the TIFF is damaged or packed in a way that is not known.")


def _tag_mpp(page: Any) -> tuple[float, float] | None:
    """Read the resolution tags. Whether they are a printer's or a scanner's, is for the reader to say."""
    unit = page.tags.get(296)
    per = {2: 25400.0, 3: 10000.0}.get(int(unit.value) if unit is not None else 2)
    sizes = []
    for code in (283, 282):
        tag = page.tags.get(code)
        if tag is None or per is None:
            return None
        top, bottom = tag.value
        sizes.append(per * bottom / top if top else 0.0)
    return (sizes[0], sizes[1]) if min(sizes) > 0 and max(sizes) < 1e6 else None
