"""Stored tiles, each decoded once: read a tile's bytes, decode them with libjpeg-turbo, stitch what a region needs.

OpenSlide decodes into premultiplied ARGB and converts twice; taking the stored JPEG bytes straight to RGB gives the
same pixels several times as fast. The engine here serves every layout whose tiles lie on a plain grid.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.codecs.codestream import SOI, DataMissingError, decode_compared, may_be_made_up, read_jpeg
from medclip.dicom.codecs.completeness import NO_END, UNTERMINATED_HINT, decode_unterminated, lacks
from medclip.errors import MedclipError, Reason
from medclip.imaging.slides.readers.backend import WHITE, missing

Decode = Callable[[int], "NDArray[Any] | None"]
"""Decodes tile `index` (row-major) to [h, w, C], or None where nothing was scanned."""


_SLAB_BYTES = 1 << 20
"""Of 4 MiB and more numpy asks for huge pages, and on a busy machine those took longer to get than they save."""
_ALIGNED = 64
_NO_MEMORY = np.empty(0, np.uint8)
_T = TypeVar("_T")


class TileCache:
    """Decoded tiles, the least recently used dropped first. Safe to share between threads.

    Tiles lie side by side in slabs of 1 MiB, which are dropped as a whole and filled anew: memory that is touched for
    the first time costs a third of the time of decoding.

    Args:
        limit_bytes: Bytes of pixels that are kept; a single larger tile is not kept at all.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._slab_bytes = min(_SLAB_BYTES, limit_bytes // 4)
        self._tiles: dict[Hashable, tuple[NDArray[Any], int]] = {}
        self._slabs: OrderedDict[int, tuple[NDArray[np.uint8], list[Hashable]]] = OrderedDict()
        self._bytes = 0
        self._number, self._used = 0, 0
        self._lock = threading.Lock()

    def take(self, key: Hashable, use: Callable[[NDArray[Any]], _T]) -> _T | None:
        """Return what `use` makes of a tile, and mark it as used; None where it is not kept.

        Args:
            key: Name of the tile.
            use: Function that copies what it needs of the tile: the memory is another tile's later.
        """
        with self._lock:
            tile, number = self._tiles.get(key, (None, 0))
            if tile is None:
                return None
            self._slabs.move_to_end(number)
            return use(tile)

    def store(self, key: Hashable, tile: NDArray[Any]) -> None:
        """Keep a copy of a tile."""
        if tile.nbytes > self._limit:
            return
        with self._lock:
            if key in self._tiles:
                return
            memory = self._room(tile.nbytes)
            kept = memory.view(tile.dtype).reshape(tile.shape)
            kept[...] = tile
            self._tiles[key] = kept, self._number
            self._slabs[self._number][1].append(key)
            self._slabs.move_to_end(self._number)

    def _room(self, num_bytes: int) -> NDArray[np.uint8]:
        """Return room for one tile: in the slab that is being filled, in the next one, or in one of its own."""
        memory, _ = self._slabs.get(self._number, (_NO_MEMORY, []))
        if self._used + num_bytes > len(memory):
            memory = self._slab(max(self._slab_bytes, num_bytes))
            self._number, self._used = self._number + 1, 0
            self._slabs[self._number] = memory, []
            self._bytes += len(memory)
        start = self._used
        self._used += -(-num_bytes // _ALIGNED) * _ALIGNED
        return memory[start : start + num_bytes]

    def _slab(self, num_bytes: int) -> NDArray[np.uint8]:
        """Return memory of a slab: of one that is dropped for it, where it fits, or new memory."""
        memory = _NO_MEMORY
        while self._bytes + num_bytes > self._limit:
            _, (memory, keys) = self._slabs.popitem(last=False)
            self._bytes -= len(memory)
            for key in keys:
                del self._tiles[key]
        return memory if len(memory) == num_bytes else np.empty(num_bytes, np.uint8)


@dataclass(frozen=True)
class TileLayout:
    """Where the tiles of one level lie: a grid from the top left corner, tiles at the far edges padded or cut."""

    height_px: int
    width_px: int
    tile_height: int
    tile_width: int

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return -(-self.width_px // self.tile_width)

    @property
    def rows(self) -> int:
        """Rows of tiles."""
        return -(-self.height_px // self.tile_height)


class TiledLevel:
    """One level of stored tiles.

    Args:
        key: Name of the level in the cache.
        layout: Grid of the level.
        decode: Function that decodes one tile.
        cache: Cache that the slide's levels share.
        channels: Channels of a tile.
        dtype: Type of a tile.
    """

    def __init__(
        self,
        key: Hashable,
        layout: TileLayout,
        decode: Decode,
        cache: TileCache,
        channels: int = 3,
        dtype: Any = np.uint8,
    ) -> None:
        self.layout = layout
        self._key, self._decode, self._cache = key, decode, cache
        self._channels, self._dtype = channels, np.dtype(dtype)
        self._seen: set[int] = set()

    @property
    def channels(self) -> int:
        """Channels of a tile."""
        return self._channels

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a tile."""
        return self._dtype

    def region(self, top: int, left: int, height: int, width: int, fill: float = WHITE) -> NDArray[Any]:
        """Read [height, width, channels]; `fill` outside the level and where nothing was scanned."""
        layout = self.layout
        th, tw = layout.tile_height, layout.tile_width
        if (
            height == th
            and width == tw
            and not top % th
            and not left % tw
            and 0 <= top <= layout.height_px - th
            and 0 <= left <= layout.width_px - tw
        ):
            tile = self._whole(top // th * layout.columns + left // tw)
            if tile is not None and tile.shape == (th, tw, self._channels):
                return tile
        y0, x0 = max(top, 0), max(left, 0)
        y1, x1 = min(top + height, layout.height_px), min(left + width, layout.width_px)
        shape = (height, width, self._channels)
        if (y0, x0, y1, x1) != (top, left, top + height, left + width):
            out = np.full(shape, fill, self._dtype)
            if y0 >= y1 or x0 >= x1:
                return out
        else:
            out = np.empty(shape, self._dtype)
        for row in range(y0 // th, (y1 - 1) // th + 1):
            a, b = max(y0, row * th), min(y1, row * th + th)
            for column in range(x0 // tw, (x1 - 1) // tw + 1):
                c, d = max(x0, column * tw), min(x1, column * tw + tw)
                target = out[a - top : b - top, c - left : d - left]
                window = slice(a - row * th, b - row * th), slice(c - column * tw, d - column * tw)
                if not self._copy(row * layout.columns + column, window, target):
                    target[...] = fill
        return out

    def _whole(self, index: int) -> NDArray[Any] | None:
        """Return one tile away. A grid that falls on the tiles asks for each once: a copy to keep would cost a quarter
        of the time for nothing. A tile that is asked for a second time is kept.
        """
        key = (self._key, index)
        tile = self._cache.take(key, np.copy)
        if tile is None:
            tile = self._decode(index)
            if tile is not None and index in self._seen:
                self._cache.store(key, tile)
            self._seen.add(index)
        return tile

    def _copy(self, index: int, window: tuple[slice, slice], target: NDArray[Any]) -> bool:
        """Copy a part of a tile; False where nothing was scanned."""

        def use(tile: NDArray[Any]) -> bool:
            part = tile[window]
            if part.shape != target.shape:
                raise MedclipError(Reason.CORRUPT, "a stored tile of the slide is smaller than the grid it lies on.")
            target[...] = part
            return True

        key = (self._key, index)
        if self._cache.take(key, use):
            return True
        tile = self._decode(index)
        if tile is None:
            return False
        self._cache.store(key, tile)
        return use(tile)


class StoredBytes:
    """The encoded tiles of one TIFF directory, read without a seek so that threads may share the file.

    Args:
        file: Descriptor of the open file.
        offsets: Offset of each tile in bytes.
        counts: Number of bytes of each tile; 0 where nothing was scanned.
    """

    def __init__(self, file: int, offsets: Sequence[int], counts: Sequence[int]) -> None:
        self._file, self._offsets, self._counts = file, offsets, counts

    def __len__(self) -> int:
        return len(self._offsets)

    def read(self, index: int) -> bytes | None:
        """Read the bytes of tile `index`, or None where there are none.

        Raises:
            MedclipError: TRUNCATED if the file ends before the tile does.
        """
        if index >= len(self._offsets) or index >= len(self._counts):
            raise MedclipError(Reason.CORRUPT, "the slide's table of tiles is shorter than its grid.")
        offset, count = self._offsets[index], self._counts[index]
        if not count or not offset:
            return None
        data = b"" if offset + count > os.fstat(self._file).st_size else os.pread(self._file, count, offset)
        if len(data) != count:
            raise MedclipError(
                Reason.TRUNCATED, "the file ends before a stored tile does; copy it again from its source."
            )
        return data


class TilesCheck:
    """Looks whether tiles are all there that another library decodes: OpenSlide makes up what one lacks (measured).

    Args:
        stored: The encoded tiles.
        layout: Grid of the tiles.
    """

    def __init__(self, stored: StoredBytes, layout: TileLayout) -> None:
        self._stored, self._layout = stored, layout
        self._seen: set[int] = set()

    def check(self, top: int, left: int, height: int, width: int) -> None:
        """Refuse a region with a tile that is not all there.

        Raises:
            MedclipError: TRUNCATED.
        """
        layout = self._layout
        bottom, right = min(top + height, layout.height_px), min(left + width, layout.width_px)
        for row in range(max(top, 0) // layout.tile_height, -(-bottom // layout.tile_height)):
            for column in range(max(left, 0) // layout.tile_width, -(-right // layout.tile_width)):
                index = row * layout.columns + column
                data = None if index in self._seen else self._stored.read(index)
                if data is not None and (lacking := lacks(data)):
                    raise _cut(lacking)
                self._seen.add(index)


def decode_whole(data: bytes, decode: Callable[[bytes], NDArray[Any]], *, unterminated: bool) -> NDArray[Any]:
    """Decode a stored tile that is all there: decoders make up what a cut one lacks.

    Args:
        data: The tile, of any codec.
        decode: Decoder of the tile.
        unterminated: Whether one that lacks its end marker, and nothing else, is decoded.

    Raises:
        MedclipError: TRUNCATED.
    """
    jpeg = read_jpeg(data) if data[:2] == SOI else None
    lacking = lacks(data, jpeg)
    if not lacking:
        decoded = decode(data)
        if jpeg is None or not may_be_made_up(data, decoded[-1, -1], jpeg):
            return decoded
        try:
            return decode_compared(data, decode, bytes)
        except DataMissingError as error:
            raise _cut(str(error)) from None
    if lacking == NO_END and unterminated:
        with contextlib.suppress(ValueError):
            return decode_unterminated(data, decode)
    raise _cut(lacking)


def _cut(lacking: str) -> MedclipError:
    return MedclipError(
        Reason.TRUNCATED,
        f"a stored tile of the slide ends too early: {lacking}.",
        hint=UNTERMINATED_HINT if lacking == NO_END else "",
    )


def jpeg_tiles(
    stored: StoredBytes, layout: TileLayout, tables: bytes | None, colour: str, *, unterminated: bool
) -> Decode:
    """Make the decoder of a TIFF directory of 8-bit, three-channel JPEG tiles.

    Args:
        stored: The encoded tiles.
        layout: Grid of the tiles.
        tables: The directory's JPEGTables, which its tiles leave out.
        colour: "RGB" or "YCBCR": what the tiles hold, as the photometric interpretation says.
        unterminated: Whether tiles that lack their end marker, and nothing else, are read.
    """
    shape = (layout.tile_height, layout.tile_width, 3)

    def decode(index: int) -> NDArray[Any] | None:
        data = stored.read(index)
        if data is None:
            return None
        return decode_whole(data, lambda stream: decode_jpeg(stream, shape, colour, tables), unterminated=unterminated)

    return decode


def decode_jpeg(
    data: bytes, shape: tuple[int, int, int], colour: str, tables: bytes | None = None
) -> NDArray[np.uint8]:
    """Decode one JPEG to RGB.

    Args:
        data: The JPEG.
        shape: The size it must have: one that claims more is refused before anything is allocated.
        colour: "RGB" or "YCBCR".
        tables: An abbreviated stream with the quantisation and Huffman tables.

    Raises:
        MedclipError: CORRUPT if it does not decode to that size.
    """
    try:
        import imagecodecs
    except ImportError:
        raise missing("imagecodecs") from None
    try:
        out = np.empty(shape, np.uint8)
        return imagecodecs.jpeg8_decode(data, tables=tables, colorspace=colour, outcolorspace="RGB", out=out)
    except Exception:
        # The decoder raises several types; its texts are about the JPEG's internals.
        raise MedclipError(
            Reason.CORRUPT, "a stored tile of the slide is damaged: its JPEG data does not decode."
        ) from None
