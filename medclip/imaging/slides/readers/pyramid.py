"""The pyramid behind a slide reader: micrometres above, stored levels below. Levels do not leave this file.

How a region is made, always the same way:

1. The coarsest stored level that is at least as fine as what is asked for is taken.
2. If its µm/px is within `NATIVE` (2 %) of what is asked for, its pixels are given as they are stored, from the nearest
   whole pixel on. `effective_mpp` says which µm/px that is: a grid must step by it.
3. If k times its µm/px is (0.25 for 0.5 asked for, the common case), k x k pixels are averaged, counted from the
   slide's corner, as scanners make their own levels. `effective_mpp` says k times its µm/px.
4. Otherwise, where it is 4 or more times finer, it is first averaged over k x k pixels, k = half the factor rounded
   down, counted from the slide's corner, and then brought to size with PIL's LANCZOS. Both look beyond the region's
   border, so neighbouring regions fit together.
5. Outside the slide, and where nothing was scanned, is white.
A finer scale than the slide was scanned at is refused: enlarging adds no detail.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.imaging.slides.readers.backend import PRINT_UM, Backend, Level, SlideFacts, SlideSpec
from medclip.imaging.slides.readers.dicom import DicomBackend
from medclip.imaging.slides.readers.openslide import OpenSlideBackend
from medclip.imaging.slides.readers.tiff import TiffBackend
from medclip.result import Result

_BLOCK_PX = 768
"""Rows and columns of the finer level held at once, three stored tiles of 256 px: memory this small is used again block
after block. New memory for a whole small slide without levels cost a fifth of its overview's time."""
NATIVE = 0.02
"""Scanners of one nominal magnification differ by this much (0.2456 to 0.2527 µm/px for "40 x")."""
BACKENDS: Mapping[str, Callable[[SlideSpec], Backend]] = {
    "openslide": OpenSlideBackend,
    "dicom": DicomBackend,
    "tiff": TiffBackend,
}

_NAME_IT = (
    "Name the scanner's micrometres per pixel: in the table's column mpp_um, or for all with --reading mpp_um=UM."
)


class SlideReader(Result):
    """A slide, in micrometres. Can be pickled; every process opens the files for itself, when it first reads.

    Args:
        spec: Specification of how to open the slide.
    """

    def __init__(self, spec: SlideSpec) -> None:
        self._spec = spec
        self._open: tuple[int, Backend] | None = None
        self._chosen: dict[float, tuple[int, int]] = {}
        self.facts: SlideFacts = self._backend().facts
        """What the backend said of the slide."""
        base = self.facts.levels[0]
        self._ratios = tuple(
            (_ratio(base.height_px, level.height_px), _ratio(base.width_px, level.width_px))
            for level in self.facts.levels
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open files behind."""
        return {**self.__dict__, "_open": None}

    def __enter__(self) -> SlideReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def spec(self) -> SlideSpec:
        """How the slide is opened."""
        return self._spec

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width of the finest stored resolution in pixels."""
        return self.levels[0].height_px, self.levels[0].width_px

    @property
    def mpp_um(self) -> tuple[float, float] | None:
        """Row and column size of a pixel at the finest resolution in µm; None if neither file nor user says. What the
        file says goes first, unless it is a print resolution.
        """
        user = self._spec.mpp_um
        return (user, user) if user and (self.facts.mpp_um is None or self.for_print) else self.facts.mpp_um

    @property
    def for_print(self) -> bool:
        """Whether the scale that the file states is a printer's or a screen's, and no scanner's."""
        stated = self.facts.mpp_um
        return stated is not None and min(stated) > PRINT_UM

    @property
    def size_um(self) -> tuple[float, float]:
        """Height and width in micrometres. Raises NO_SCALE where the pixel size is unknown."""
        (rows, columns), (height, width) = self._scale(), self.size_px
        return height * rows, width * columns

    @property
    def levels(self) -> tuple[Level, ...]:
        """Sizes of the stored resolutions, finest first: to be told, not to be asked for."""
        return self.facts.levels

    @property
    def properties(self) -> Mapping[str, str | float]:
        """Allow-listed facts: vendor, objective_power."""
        return self.facts.properties

    @property
    def associated(self) -> tuple[str, ...]:
        """Names of label, macro, thumbnail: they may show identifiers, and are read only on request."""
        return self.facts.associated

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth knowing of how pixels are made, such as how channels become colours."""
        return self.facts.notes

    def _facts(self) -> dict[str, object]:
        height, width = self.size_px
        return {
            "slide": f"{width} x {height} pixels, {len(self.levels)} stored resolutions",
            "µm/px": "not stated" if self.mpp_um is None else f"{self.mpp_um[0]:.4f} x {self.mpp_um[1]:.4f}",
            "images beside it": ", ".join(self.associated),
            "notes": " ".join(self.notes),
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        scales = self.stored_mpp() if self.mpp_um else [None] * len(self.levels)
        rows = [asdict(level) | {"mpp_um": um} for level, um in zip(self.levels, scales, strict=True)]
        return rows[:most]

    def stored_mpp(self) -> tuple[float, ...]:
        """µm/px of the stored resolutions, finest first (mean of rows and columns)."""
        return tuple(sum(self._level_mpp(i)) / 2 for i in range(len(self.levels)))

    def effective_mpp(self, mpp_um: float) -> tuple[float, float]:
        """Row and column µm/px of what `read` gives: a level's or a multiple of it within 2 %, else the wanted one."""
        level, times = self._choose(mpp_um)
        rows, columns = self._level_mpp(level)
        return (rows * times, columns * times) if times else (mpp_um, mpp_um)

    def read(self, top_um: float, left_um: float, height_px: int, width_px: int, mpp_um: float) -> NDArray[np.uint8]:
        """Read a region.

        Args:
            top_um: Upper edge in µm from the slide's upper edge; may be negative.
            left_um: Left edge in µm.
            height_px: Rows of the result.
            width_px: Columns of the result.
            mpp_um: Wanted µm/px; `effective_mpp` says what it becomes.

        Returns:
            RGB uint8 [height_px, width_px, 3]; white outside the slide.

        Raises:
            MedclipError: NO_SCALE without a pixel size, TOO_SMALL for a finer scale than the slide has, TOO_LARGE over
                `settings.max_pixels`, CORRUPT or TRUNCATED for damaged pixels.
        """
        if height_px < 1 or width_px < 1:
            raise MedclipError(Reason.WRONG_USE, "a region needs at least one row and one column.")
        self._check_size(height_px * width_px)
        index, times = self._choose(mpp_um)
        rows, columns = self._level_mpp(index)
        top, left = top_um / rows, left_um / columns
        backend = self._backend()

        def stored(y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
            return backend.read_level(index, y, x, height, width)

        if times == 1:
            return stored(round(top), round(left), height_px, width_px)
        if times:
            y, x = round(top / times), round(left / times)
            return reduced(stored, (y, x, y + height_px, x + width_px), times)
        factors = mpp_um / rows, mpp_um / columns
        return _resampled(stored, (top, left), factors, (height_px, width_px), self._check_size)

    def thumbnail(self, mpp_um: float) -> NDArray[np.uint8]:
        """Read the whole slide at a scale: RGB uint8 [H, W, 3], the last row and column perhaps partly white."""
        rows, columns = self.effective_mpp(mpp_um)
        height, width = self.size_um
        # A stored level that is one pixel short of the exact ratio must not grow a white row.
        return self.read(0, 0, whole(height / rows), whole(width / columns), mpp_um)

    def read_associated(self, name: str) -> NDArray[np.uint8]:
        """Read label, macro or thumbnail as RGB [H, W, 3]. It may show a patient's name or number."""
        if name not in self.associated:
            names = ", ".join(self.associated) or "none"
            raise MedclipError(Reason.WRONG_USE, f"the slide has no such image beside it; it has: {names}.")
        return self._backend().read_associated(name)

    def close(self) -> None:
        """Close the files of this process; reading again opens them again."""
        if self._open is not None and self._open[0] == os.getpid():
            self._open[1].close()
        self._open = None

    def _backend(self) -> Backend:
        """Return this process's own open slide: a handle must not be used on both sides of a fork."""
        if self._open is None or self._open[0] != os.getpid():
            self._open = os.getpid(), BACKENDS[self._spec.backend](self._spec)
        return self._open[1]

    def _scale(self) -> tuple[float, float]:
        mpp = self.mpp_um
        if mpp is None:
            raise MedclipError(
                Reason.NO_SCALE,
                "the slide does not say how large its pixels are.",
                hint=_NAME_IT,
            )
        return mpp

    def _level_mpp(self, index: int) -> tuple[float, float]:
        rows, columns = self._scale()
        down, across = self._ratios[index]
        return rows * down, columns * across

    def _choose(self, mpp_um: float) -> tuple[int, int]:
        """Choose the level to read for a scale, and how many of its pixels make one: 1 where they serve as they are,
        0 where no whole number does.
        """
        if mpp_um in self._chosen:
            return self._chosen[mpp_um]
        if not (mpp_um > 0 and np.isfinite(mpp_um)):
            raise MedclipError(Reason.WRONG_USE, "a scale must be a positive number of micrometres per pixel.")
        best = None
        for index in range(len(self.levels)):
            rows, columns = self._level_mpp(index)
            if max(rows, columns) <= mpp_um * (1 + NATIVE):
                times = max(1, round(2 * mpp_um / (rows + columns)))
                low, high = min(rows, columns) * times, max(rows, columns) * times
                best = index, times if mpp_um * (1 - NATIVE) <= low and high <= mpp_um * (1 + NATIVE) else 0
        if best is None:
            finest = max(self._level_mpp(0))
            if self.for_print and self.mpp_um == self.facts.mpp_um:
                raise MedclipError(
                    Reason.NO_SCALE,
                    f"the slide states a print resolution ({finest:.4g} µm to a pixel), not how large its pixels are.",
                    hint=_NAME_IT,
                )
            raise MedclipError(
                Reason.TOO_SMALL,
                f"the slide has {finest:.4g} µm/px, coarser than the {mpp_um:g} µm/px asked for.",
                hint="Enlarging adds no detail: ask for a coarser scale, or leave the slide out.",
            )
        self._chosen[mpp_um] = best
        return best

    def _check_size(self, pixels: int) -> None:
        if pixels > self._spec.max_pixels:
            raise MedclipError(
                Reason.TOO_LARGE, f"the region would have {pixels} pixels; the limit is {self._spec.max_pixels}."
            )


def _ratio(base: int, level: int) -> float:
    """Base pixels to a level's pixel: the whole number that writers meant, if rounding explains the rest."""
    rounded = max(1, round(base / level))
    return float(rounded) if abs(level * rounded - base) < rounded else base / level


def whole(size: float) -> int:
    """Round up, but for what is less than a thousandth of a pixel, or a stored row that was rounded away."""
    return max(1, int(np.ceil(size - 1e-3)))


def _resampled(
    stored: Callable[[int, int, int, int], NDArray[np.uint8]],
    corner: tuple[float, float],
    factors: tuple[float, float],
    size: tuple[int, int],
    check_size: Callable[[int], None],
) -> NDArray[np.uint8]:
    """Read what a region needs of a finer level and bring it to size."""
    k = max(1, int(min(factors) // 2)) if min(factors) >= 4 else 1
    (top, left), (fy, fx) = (edge / k for edge in corner), (factor / k for factor in factors)
    margin_y, margin_x = int(np.ceil(3 * fy)) + 1, int(np.ceil(3 * fx)) + 1  # LANCZOS reaches three result pixels
    y0, x0 = int(np.floor(top)) - margin_y, int(np.floor(left)) - margin_x
    y1 = int(np.ceil(top + size[0] * fy)) + margin_y
    x1 = int(np.ceil(left + size[1] * fx)) + margin_x
    check_size((y1 - y0) * (x1 - x0))
    pixels = stored(y0, x0, y1 - y0, x1 - x0) if k == 1 else reduced(stored, (y0, x0, y1, x1), k)
    return to_size(pixels, (top - y0, left - x0), (fy, fx), size)


def reduced(
    stored: Callable[[int, int, int, int], NDArray[np.uint8]], box: tuple[int, int, int, int], k: int
) -> NDArray[np.uint8]:
    """Read a rectangle averaged over k x k pixels, block by block.

    Args:
        stored: Function that reads (top, left, height, width) of the finer level.
        box: Top, left, bottom, right in averaged pixels, counted from the slide's corner: the same averages come out
            wherever a region begins.
        k: Pixels of the finer level to one averaged pixel, in each direction.

    Returns:
        RGB uint8 [bottom - top, right - left, 3].
    """
    from PIL import Image

    y0, x0, y1, x1 = box
    side = max(1, _BLOCK_PX // k)
    if y1 - y0 <= side and x1 - x0 <= side:
        return np.array(Image.fromarray(stored(y0 * k, x0 * k, (y1 - y0) * k, (x1 - x0) * k)).reduce(k))
    out = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
    for y in range(y0, y1, side):
        for x in range(x0, x1, side):
            rows, columns = min(side, y1 - y), min(side, x1 - x)
            pixels = stored(y * k, x * k, rows * k, columns * k)
            out[y - y0 : y - y0 + rows, x - x0 : x - x0 + columns] = np.asarray(Image.fromarray(pixels).reduce(k))
    return out


def to_size(
    pixels: NDArray[np.uint8], corner: tuple[float, float], factors: tuple[float, float], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Resize a part of `pixels` with LANCZOS, looking at the pixels around the part too.

    Args:
        pixels: RGB uint8 [H, W, 3].
        corner: Top and left of the part, in pixels and fractions.
        factors: Rows and columns of `pixels` to one of the result.
        size: Rows and columns of the result.

    Returns:
        RGB uint8 [size[0], size[1], 3].
    """
    from PIL import Image

    (top, left), (fy, fx), (height, width) = corner, factors, size
    box = (left, top, min(left + width * fx, pixels.shape[1]), min(top + height * fy, pixels.shape[0]))
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS, box=box))
