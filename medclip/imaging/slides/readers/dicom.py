"""DICOM slides through wsidicom: concatenations, sparse tiles, several levels in several files.

wsidicom says where a tile lies; 8-bit JPEG tiles are decoded here, because headers lie about their colours: converters
write RGB where the JPEG holds YCbCr. What the JPEG says of itself counts: its Adobe or JFIF segment, its component
names, its subsampling; the header only where it says nothing.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.header.elements import items, number, quiet, text
from medclip.errors import MedclipError, Reason
from medclip.imaging.raster_end import check_stated_size
from medclip.imaging.slides.readers.backend import Level, SlideFacts, SlideSpec, ToRgb, limits_of, missing, notes_of
from medclip.imaging.slides.readers.jpeg_tiles import (
    Decode,
    TileCache,
    TiledLevel,
    TileLayout,
    decode_jpeg,
    decode_whole,
)

_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""VL Whole Slide Microscopy Image Storage."""
_PARTS = ("ConcatenationUID", "InConcatenationNumber", "InConcatenationTotalNumber")
"""A level too large for one file is a concatenation of several (DICOM PS3.3, C.7.6.16.1.1)."""
_MATRIX = ("TotalPixelMatrixColumns", "TotalPixelMatrixRows")
_JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})


class DicomBackend:
    """An open DICOM slide.

    Args:
        spec: Files of the slide and the cache's size.

    Raises:
        MedclipError: NOT_AN_IMAGE if none of them is a slide, MISSING_FILE if one is in parts that are not all there,
            CORRUPT if they make no pyramid.
    """

    def __init__(self, spec: SlideSpec) -> None:
        try:
            from wsidicom.file import WsiDicomFileSource
        except ImportError:
            raise missing("wsidicom") from None
        paths, volumes, facts = _slides(spec.paths)
        self._source: Any = None
        try:
            with quiet("wsidicom"), quiet("pydicom"):
                self._source = WsiDicomFileSource.open(paths)
                _check_complete(volumes, self._source)
                images = _images(self._source)
                cache = TileCache(spec.cache_bytes)
                self._levels = [
                    _tiled_level(i, image, cache, unterminated=spec.accept_unterminated)
                    for i, image in enumerate(images)
                ]
                mpp = _mpp(images[0])
                num_planes, num_paths = len(images[0].focal_planes), len(images[0].optical_paths)
                self._extra = {
                    "label": list(self._source.label_instances),
                    "overview": list(self._source.overview_instances),
                }
        except MedclipError:
            self.close()
            raise
        except Exception:  # wsidicom and pydicom raise many types; their texts may quote header values
            self.close()
            raise MedclipError(
                Reason.CORRUPT, "the DICOM files do not make a slide: levels or tiles are missing."
            ) from None
        self._to_rgb = self._colours(images)
        colours = self._to_rgb.note(images[0].samples_per_pixel)
        notes = notes_of(colours, num_planes=num_planes, num_paths=num_paths)
        levels = tuple(Level(level.layout.height_px, level.layout.width_px) for level in self._levels)
        names = tuple(name for name, extra in self._extra.items() if extra)
        self.facts = SlideFacts(levels, mpp, facts, names, notes=notes, decoder="wsidicom")

    def read_level(self, level: int, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        """Read a rectangle of one level."""
        instance = self._levels[level]
        with quiet("wsidicom"):
            return self._to_rgb(instance.region(top, left, height, width, self._white))

    def read_associated(self, name: str) -> NDArray[np.uint8]:
        """Read label or overview."""
        try:
            with quiet("wsidicom"):
                image = self._extra[name][0].image_data
                size = image.image_size
                layout = TileLayout(int(size.height), int(size.width), *_tile(image))
                decode = _decoder(image, layout, unterminated=False)
                level = TiledLevel(name, layout, decode, TileCache(0), image.samples_per_pixel)
                return ToRgb()(level.region(0, 0, layout.height_px, layout.width_px))
        except MedclipError:
            raise
        except Exception:
            raise MedclipError(Reason.CORRUPT, "the image beside the slide cannot be decoded.") from None

    def close(self) -> None:
        """Close the files."""
        if self._source is not None:
            self._source.close()
        self._source = None

    def _colours(self, images: list[Any]) -> ToRgb:
        """Return how stored values become RGB, and which stored value is white."""
        inverted = images[0].photometric_interpretation == "MONOCHROME1"
        if images[0].dtype == np.uint8:
            self._white: float = 0 if inverted else 255
            return ToRgb(inverted=inverted)
        coarsest = self._levels[-1]
        overview = coarsest.region(0, 0, coarsest.layout.height_px, coarsest.layout.width_px, 0)
        limits = limits_of([overview[:, :, i] for i in range(overview.shape[2])])
        self._white = limits[0][0] if inverted else limits[0][1]
        return ToRgb(limits, inverted)


def _slides(paths: tuple[Path, ...]) -> tuple[list[Path], set[Path], dict[str, str | float]]:
    """Keep the files that are slide images, name those that hold levels, and read what may be told of them."""
    import pydicom

    kept: list[Path] = []
    volumes: set[Path] = set()
    facts: dict[str, str | float] = {}
    tags = ["SOPClassUID", "ImageType", "Manufacturer", "OpticalPathSequence", *_PARTS, *_MATRIX]
    parts: dict[str, tuple[int, set[int]]] = {}
    stated = has_matrix = False
    for path in paths:
        try:
            with quiet("pydicom"):
                header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
                if str(header["SOPClassUID"].value) != _SLIDE:
                    continue
                kept.append(path)
                kinds = header.get("ImageType") or ()
                stated |= bool(kinds)
                has_matrix |= all(header.get(name) for name in _MATRIX)
                if "VOLUME" in kinds:
                    volumes.add(path)
                    facts = facts or _allowed(header)
                    _count_part(header, parts)
        except Exception:
            raise MedclipError(Reason.CORRUPT, "a file of the DICOM slide has an unreadable header.") from None
    if kept and not stated:
        size = ", though it states the size of its matrix (TotalPixelMatrix)" if has_matrix else ""
        raise MedclipError(
            Reason.CORRUPT,
            f"the DICOM slide does not state what its images are (ImageType): levels, label or overview{size}.",
            hint="Add it where it is known: ORIGINAL, PRIMARY, VOLUME, NONE for a level." if has_matrix else "",
        )
    if not volumes:
        raise MedclipError(
            Reason.NOT_AN_IMAGE,
            "the DICOM files hold no slide image (a label, an overview, a segmentation or an annotation only).",
        )
    _check_parts(parts)
    return kept, volumes, facts


def _count_part(header: Any, parts: dict[str, tuple[int, set[int]]]) -> None:
    """Note which part of which concatenation a file is: its identifier -> how many there are, and which were seen."""
    concatenation, number, total = (header.get(name) for name in _PARTS)
    if not concatenation or not number:
        return
    stated, seen = parts.get(str(concatenation), (0, set()))
    # The total may be left out; the highest number is the least that there are.
    parts[str(concatenation)] = max(stated, int(total or 0), int(number)), seen | {int(number)}


def _check_parts(parts: dict[str, tuple[int, set[int]]]) -> None:
    """Refuse a concatenation that is not whole: its tiles would be taken for damaged, or for empty glass."""
    for total, seen in parts.values():
        if len(seen) < total:
            raise MedclipError(
                Reason.MISSING_FILE,
                f"{total - len(seen)} of the {total} parts of a level of the DICOM slide are missing.",
                hint="Fetch all files of the series, and give them together.",
            )


def _check_complete(volumes: set[Path], source: Any) -> None:
    """Refuse a slide with a level that wsidicom left out with no more than a line in its log."""
    # wsidicom gives its paths without links and dots.
    lost = len({path.resolve() for path in volumes} - {Path(str(path)).resolve() for path in source.files})
    if lost:
        raise MedclipError(
            Reason.CORRUPT,
            f"{lost} of the {len(volumes)} files with the levels of the DICOM slide cannot be opened: damaged, or "
            "stored in a way that is not read.",
        )


def _images(source: Any) -> list[Any]:
    """Return the images of the levels, finest first."""
    from wsidicom import WsiDicom
    from wsidicom.errors import WsiDicomNoResolutionError

    try:
        slide: Any = WsiDicom(source, source_owned=False)
        levels = sorted(slide.levels, key=lambda level: level.level)
        return [level.default_instance.image_data for level in levels]
    except WsiDicomNoResolutionError:
        # Without pixel sizes wsidicom ties no levels together; their sizes in pixels say enough.
        images = [instance.image_data for instance in source.level_instances]
        by_size = {(int(image.image_size.height), int(image.image_size.width)): image for image in images[::-1]}
        return [by_size[size] for size in sorted(by_size, key=lambda size: size[0] * size[1], reverse=True)]


def _allowed(header: Any) -> dict[str, str | float]:
    """Take over vendor and objective power."""
    facts: dict[str, str | float] = {}
    vendor = text(header, "Manufacturer")[:64]
    if vendor:
        facts["vendor"] = vendor
    for item in items(header, "OpticalPathSequence"):
        power = number(item, "ObjectiveLensPower")
        if power is not None and power > 0:
            facts["objective_power"] = power
            break
    return facts


def _mpp(image: Any) -> tuple[float, float] | None:
    spacing = image.pixel_spacing
    if spacing is None:
        return None
    rows, columns = float(spacing.height) * 1000, float(spacing.width) * 1000
    return (rows, columns) if min(rows, columns) > 0 and math.isfinite(rows + columns) else None


def _tile(image: Any) -> tuple[int, int]:
    return int(image.tile_size.height), int(image.tile_size.width)


def _tiled_level(index: int, image: Any, cache: TileCache, *, unterminated: bool) -> TiledLevel:
    size = image.image_size
    layout = TileLayout(int(size.height), int(size.width), *_tile(image))
    decode = _decoder(image, layout, unterminated=unterminated)
    return TiledLevel(index, layout, decode, cache, image.samples_per_pixel, image.dtype)


def _decoder(image: Any, layout: TileLayout, *, unterminated: bool) -> Decode:
    """Make the decoder of one level's tiles."""
    from wsidicom.geometry import Point

    # wsidicom's own default is an outer plane where planes are counted from the middle.
    planes = sorted(image.focal_planes)
    focus, optical_path = planes[len(planes) // 2] if planes else image.default_z, image.default_path
    stated = "RGB" if image.photometric_interpretation == "RGB" else "YCBCR"
    shape = (layout.tile_height, layout.tile_width, 3)
    jpeg = str(image.transfer_syntax) == _JPEG_BASELINE and image.samples_per_pixel == 3

    def decode_stored(stream: bytes) -> NDArray[Any]:
        return np.asarray(image.decoder.decode(stream))

    def decode(index: int) -> NDArray[Any] | None:
        tile = Point(index % layout.columns, index // layout.columns)
        try:
            if image.is_sparse(tile, focus, optical_path):
                return None
            data = image.get_encoded_tile(tile, focus, optical_path)
            if jpeg:
                colour = jpeg_colour(data, stated)
                return decode_whole(data, lambda stream: decode_jpeg(stream, shape, colour), unterminated=unterminated)
            if not image.transfer_syntax.is_encapsulated:
                pixels = decode_stored(data)
            else:
                check_stated_size(data, layout.tile_height, layout.tile_width)
                pixels = decode_whole(data, decode_stored, unterminated=unterminated)
        except MedclipError:
            raise
        except Exception:
            raise MedclipError(Reason.CORRUPT, "a stored tile of the DICOM slide cannot be decoded.") from None
        return pixels if pixels.ndim == 3 else pixels[:, :, None]

    return decode


def jpeg_colour(data: bytes, stated: str) -> str:
    """Return what a three-channel JPEG holds.

    Args:
        data: The JPEG.
        stated: Colour space that the header states: "RGB" or "YCBCR".

    Returns:
        "RGB" or "YCBCR": by the Adobe segment's transform, else a JFIF segment (always YCbCr), else components named R,
        G, B, else subsampled colour (RGB is never subsampled), else `stated`.
    """
    at, jfif = 2, False
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if marker == 0xFF or length < 2:
            at += 1
            continue
        if marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:
            return "RGB" if body[11] == 0 else "YCBCR"
        jfif = jfif or (marker == 0xE0 and body[:4] == b"JFIF")
        if marker in _FRAMES and len(body) >= 15 and not jfif:
            names, sampling = body[6:15:3], body[7:15:3]
            if names == b"RGB":
                return "RGB"
            return stated if len(set(sampling)) == 1 else "YCBCR"
        if marker == 0xDA:
            break
        at += 2 + length
    return "YCBCR" if jfif else stated
