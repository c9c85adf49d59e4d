"""Vendor formats through OpenSlide; levels of plain JPEG tiles are taken from the file directly, with equal pixels."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.header.elements import quiet
from medclip.errors import MedclipError, Reason
from medclip.imaging.raster_end import WITH_END
from medclip.imaging.slides.readers.backend import WHITE, Level, SlideFacts, SlideSpec, missing
from medclip.imaging.slides.readers.jpeg_tiles import (
    StoredBytes,
    TileCache,
    TiledLevel,
    TileLayout,
    TilesCheck,
    jpeg_tiles,
)

_PLAIN = frozenset({"aperio", "generic-tiff"})
"""Vendors whose levels are TIFF directories on a plain grid; others overlap, pad or interleave their tiles."""
_JPEG, _RGB, _YCBCR = 7, 2, 6
_SHORT = ("premature", "short read", "truncat", "end of file", "eof")


def _library() -> Any:
    try:
        import openslide
    except (ImportError, OSError):
        raise missing("openslide-python (with openslide-bin)") from None
    return openslide


def is_installed() -> bool:
    """Return whether OpenSlide can be used."""
    try:
        _library()
    except MedclipError:
        return False
    return True


def knows(path: Path) -> bool:
    """Return whether OpenSlide is the one to open a file. Without OpenSlide it knows nothing.

    It takes a tiled OME-TIFF for a plain one, without its levels, channels and pixel size: tifffile reads those.
    """
    try:
        vendor = _library().OpenSlide.detect_format(path)
    except MedclipError:
        return False
    return vendor is not None and not (vendor == "generic-tiff" and _is_ome(path))


def _is_ome(path: Path) -> bool:
    import tifffile

    try:
        with quiet("tifffile"), tifffile.TiffFile(path) as tiff:
            return bool(tiff.is_ome)
    except Exception:  # a damaged TIFF: whoever opens it says why
        return False


class OpenSlideBackend:
    """An open slide.

    Args:
        spec: Path of the slide and the cache's size.

    Raises:
        MedclipError: NOT_SUPPORTED_YET if it is of no known kind, CORRUPT or TRUNCATED if OpenSlide cannot open it.
    """

    def __init__(self, spec: SlideSpec) -> None:
        self._openslide = _library()
        self._path = spec.paths[0]
        self._slide = self._opened()
        self._file: int | None = None
        self._tiled: dict[int, TiledLevel] = {}
        self._unseen: dict[int, TilesCheck] = {}
        properties = self._slide.properties
        vendor = properties.get("openslide.vendor", "")
        levels = tuple(Level(height, width) for width, height in self._slide.level_dimensions)
        if vendor in _PLAIN:
            self._find_tiles(levels, TileCache(spec.cache_bytes), unterminated=spec.accept_unterminated)
        self.facts = SlideFacts(
            levels,
            _mpp(properties),
            _allowed(vendor, properties),
            tuple(self._slide.associated_images),
            (_integer(properties, "openslide.bounds-y"), _integer(properties, "openslide.bounds-x")),
            decoder="openslide" + (" + turbo JPEG tiles" if self._tiled else ""),
        )

    def read_level(self, level: int, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        """Read a rectangle of one level."""
        tiled = self._tiled.get(level)
        if tiled is not None:
            return tiled.region(top, left, height, width)
        if self._slide is None:
            self._slide = self._opened()
        if level in self._unseen:
            self._unseen[level].check(top, left, height, width)
        scale = self._slide.level_downsamples[level]
        try:
            # OpenSlide wants the corner in pixels of the finest level.
            image = self._slide.read_region((round(left * scale), round(top * scale)), level, (width, height))
        except self._openslide.OpenSlideError as error:
            self._slide = None  # OpenSlide's handle stays in its error state for good
            raise _damaged(error) from None
        if image.getchannel("A").getextrema()[0] == 255:
            # PIL drops alpha while it packs; over a bytearray the array may be written to, without another copy.
            packed = bytearray(image.tobytes("raw", "RGB"))
            return np.frombuffer(packed, np.uint8).reshape(height, width, 3)
        rgba = np.asarray(image).astype(np.uint16)
        alpha = rgba[:, :, 3:]
        return ((rgba[:, :, :3] * alpha + WHITE * (255 - alpha) + 127) // 255).astype(np.uint8)

    def read_associated(self, name: str) -> NDArray[np.uint8]:
        """Read label, macro or thumbnail."""
        try:
            return np.array((self._slide or self._opened()).associated_images[name].convert("RGB"))
        except self._openslide.OpenSlideError as error:
            self._slide = None
            raise _damaged(error) from None

    def close(self) -> None:
        """Close the slide."""
        if self._slide is not None:
            self._slide.close()
        if self._file is not None:
            os.close(self._file)
        self._slide = self._file = None
        self._tiled, self._unseen = {}, {}

    def _opened(self) -> Any:
        try:
            return self._openslide.OpenSlide(self._path)
        except self._openslide.OpenSlideUnsupportedFormatError:
            raise MedclipError(Reason.NOT_SUPPORTED_YET, "OpenSlide does not know this kind of slide.") from None
        except self._openslide.OpenSlideError as error:
            raise _damaged(error) from None

    def _find_tiles(self, levels: tuple[Level, ...], cache: TileCache, *, unterminated: bool) -> None:
        """Find the TIFF directories of the levels that hold 8-bit RGB in JPEG tiles."""
        # A failure here costs speed only: OpenSlide reads the level then.
        with contextlib.suppress(Exception), quiet("tifffile"):
            import imagecodecs  # noqa: F401 - without it OpenSlide reads all levels
            import tifffile

            file = self._file = os.open(self._path, os.O_RDONLY)
            with tifffile.TiffFile(self._path) as tiff:
                pages: list[Any] = [page.aspage() for page in tiff.pages]
                for index, level in enumerate(levels):
                    candidates = [
                        p
                        for p in pages
                        if p.is_tiled and p.imagelength == level.height_px and p.imagewidth == level.width_px
                    ]
                    if len(candidates) == 1 and candidates[0].compression in WITH_END:
                        self._unseen[index] = _tiles_check(candidates[0], file)
                    if len(candidates) == 1 and _is_plain_jpeg(candidates[0]):
                        self._tiled[index] = _tiled_level(index, candidates[0], file, cache, unterminated=unterminated)


def _is_plain_jpeg(page: Any) -> bool:
    return (
        page.is_tiled
        and page.compression == _JPEG
        and page.photometric in (_RGB, _YCBCR)
        and page.samplesperpixel == 3
        and page.bitspersample == 8
        and page.planarconfig == 1
        and len(page.dataoffsets) == -(-page.imagelength // page.tilelength) * -(-page.imagewidth // page.tilewidth)
        and all(page.databytecounts)  # Aperio leaves out tiles that OpenSlide then takes from other levels
    )


def _tiled_level(index: int, page: Any, file: int, cache: TileCache, *, unterminated: bool) -> TiledLevel:
    layout = TileLayout(page.imagelength, page.imagewidth, page.tilelength, page.tilewidth)
    colour = "YCBCR" if page.photometric == _YCBCR else "RGB"
    stored = StoredBytes(file, page.dataoffsets, page.databytecounts)
    decode = jpeg_tiles(stored, layout, page.jpegtables, colour, unterminated=unterminated)
    return TiledLevel(index, layout, decode, cache)


def _tiles_check(page: Any, file: int) -> TilesCheck:
    layout = TileLayout(page.imagelength, page.imagewidth, page.tilelength, page.tilewidth)
    return TilesCheck(StoredBytes(file, page.dataoffsets, page.databytecounts), layout)


def _damaged(error: Exception) -> MedclipError:
    """Return the reason for an error of OpenSlide. Its text may quote the file, and is not passed on."""
    text = str(error).lower()
    if "unsupported" in text or "not supported" in text:
        return MedclipError(
            Reason.NOT_SUPPORTED_YET, "OpenSlide knows this kind of slide, but not how it is compressed."
        )
    if any(word in text for word in _SHORT):
        return MedclipError(Reason.TRUNCATED, "the slide ends too early; copy it again from its source.")
    return MedclipError(Reason.CORRUPT, "the slide is damaged: OpenSlide cannot read its pixels.")


def _allowed(vendor: str, properties: Any) -> dict[str, str | float]:
    """Take over what identifies nobody. Comments and vendor properties hold dates, users and file names."""
    allowed: dict[str, str | float] = {"vendor": vendor} if vendor else {}
    power = _number(properties, "openslide.objective-power")
    return allowed if power is None else {**allowed, "objective_power": power}


def _mpp(properties: Any) -> tuple[float, float] | None:
    rows, columns = _number(properties, "openslide.mpp-y"), _number(properties, "openslide.mpp-x")
    rows, columns = rows or columns, columns or rows
    return None if rows is None or columns is None else (rows, columns)


def _number(properties: Any, name: str) -> float | None:
    try:
        value = float(properties.get(name, "nan"))
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _integer(properties: Any, name: str) -> int:
    return int(_number(properties, name) or 0)
