"""Where patches are taken: a regular grid by size and µm/px, kept where there is enough tissue.

A grid is counted from the slide's corner, or from that of each piece of tissue. One from the slide's corner cuts a
biopsy of a patch's width into two halves that are both too empty. Piece by piece, each has its own origin: its bounding
box is divided into cells, and a cell is kept when more than the least share of it is that piece's tissue (its own: no
tissue is the reason for two patches).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.imaging.slides.readers.open import open_slide
from medclip.imaging.slides.readers.pyramid import SlideReader
from medclip.imaging.slides.tissue.find import TissueMask, TissueOptions, find_tissue
from medclip.result import Result
from medclip.settings import Settings
from medclip.wording import count

# Where patches are taken: a regular grid by size and µm/px, kept where there is enough tissue.
#
# A grid is counted from the slide's corner, or from that of each piece of tissue. One from the slide's corner cuts a
# biopsy of a patch's width into two halves that are both too empty. Piece by piece, each has its own origin: its
# bounding box is divided into cells, and a cell is kept when more than the least share of it is that piece's tissue
# (its own: no tissue is the reason for two patches).

_NEARLY = 1e-6


@dataclass(frozen=True, slots=True)
class Patch:
    """One square of the grid."""

    row: int
    column: int
    top_um: float
    left_um: float
    coverage: float
    """Share of its area that is tissue; 1 where no mask was given and it lies wholly on the slide."""


@dataclass(frozen=True, eq=False, repr=False)
class PatchGrid(Result):
    """The patches of a slide, row by row."""

    size_px: int
    """Rows and columns of a patch."""
    mpp_um: float
    """The µm/px that was asked for: what `reader.read` wants to be told."""
    effective_mpp_um: tuple[float, float]
    """Row and column µm/px of the pixels."""
    stride_um: tuple[float, float]
    kept: NDArray[np.int32]
    """[patches, 2]: row and column of each patch that is kept, in reading order."""
    coverage: NDArray[np.float32]
    """[patches]"""
    candidates: int
    """Patches of the whole grid, with and without tissue; of all bounding boxes, piece by piece."""
    piece: NDArray[np.int32] | None = None
    """[patches]: the piece of tissue that each is counted from; None for a grid from the slide's corner."""
    origins_um: NDArray[np.float64] = field(default_factory=lambda: np.zeros((1, 2)))
    """[pieces, 2]: top and left of where rows and columns are counted from."""

    def __len__(self) -> int:
        return len(self.kept)

    def _facts(self) -> dict[str, object]:
        return {
            "patches": f"{len(self)} of {self.candidates} places",
            "size": f"{self.size_px} pixels at {self.mpp_um:g} µm/px",
            "stride": " x ".join(f"{um:.1f}" for um in self.stride_um) + " µm",
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return [asdict(patch) for patch in islice(self, most)]

    def __iter__(self) -> Iterator[Patch]:
        for index in range(len(self)):
            yield self.patch(index)

    @property
    def status(self) -> str:
        """Either ok, or no patches for a grid without a single one: nothing goes missing silently."""
        return "ok" if len(self) else "no patches"

    @property
    def corners_um_N2(self) -> NDArray[np.float64]:
        """[patches, 2]: top and left of each patch."""
        steps = self.kept.astype(np.float64) * np.asarray(self.stride_um, np.float64)
        return steps if self.piece is None else self.origins_um[self.piece] + steps

    def patch(self, index: int) -> Patch:
        """Return one patch."""
        row, column = (int(value) for value in self.kept[index])
        origin = (0.0, 0.0) if self.piece is None else self.origins_um[self.piece[index]].tolist()
        top, left = (start + n * um for start, n, um in zip(origin, (row, column), self.stride_um, strict=True))
        return Patch(row, column, top, left, float(self.coverage[index]))

    def spread(self, count: int) -> tuple[Patch, ...]:
        """Choose up to `count` patches, evenly over the tissue and the same every time.

        Patches are put in the order of a curve that keeps neighbours together (Morton's), piece by piece, and taken at
        equal steps.
        """
        if count >= len(self):
            return tuple(self)
        order = np.lexsort((_morton(self.kept), np.zeros(len(self)) if self.piece is None else self.piece))
        steps = ((np.arange(count) + 0.5) * len(self) / count).astype(np.int64)
        return tuple(self.patch(int(index)) for index in np.sort(order[steps]))


def make_grid(
    reader: SlideReader,
    tissue: TissueMask | None,
    *,
    size_px: int = 256,
    mpp_um: float = 0.5,
    overlap_px: int = 0,
    min_coverage: float = 0.5,
    by_piece: bool = False,
) -> PatchGrid:
    """Lay a grid over a slide, from its top left corner or from that of each piece of tissue.

    Patches at the lower and right edge reach beyond the slide, where there is no tissue and pixels are white.

    Args:
        reader: The slide.
        tissue: Mask of the tissue; None keeps patches by how much of them lies on the slide.
        size_px: Rows and columns of a patch.
        mpp_um: Scale of a patch in µm/px.
        overlap_px: Rows and columns that neighbours share.
        min_coverage: Least share of a patch that must be tissue, 0-1; 0 keeps every patch. Piece by piece it is to be
            exceeded, as PathGen has it.
        by_piece: Whether patches are counted from the corner of each piece of tissue, on a whole pixel of the scale.
            Without `tissue` there are no pieces.

    Returns:
        The grid; its `status` tells when it has no patches.

    Raises:
        MedclipError: NO_SCALE, or TOO_SMALL for a finer scale than the slide has; WRONG_USE for impossible sizes.
    """
    if size_px < 1 or not 0 <= overlap_px < size_px or not 0 <= min_coverage <= 1:
        raise MedclipError(
            Reason.WRONG_USE, "a grid needs a positive size, an overlap smaller than it, and a coverage from 0 to 1."
        )
    effective = reader.effective_mpp(mpp_um)
    stride = (size_px - overlap_px) * effective[0], (size_px - overlap_px) * effective[1]
    if by_piece and tissue is not None:
        return _piece_by_piece(tissue, size_px, mpp_um, effective, stride, min_coverage)
    height, width = reader.size_um
    tops, lefts = _starts(height, stride[0], effective[0]), _starts(width, stride[1], effective[1])
    size = size_px * effective[0], size_px * effective[1]
    if tissue is None:
        down = np.minimum(tops + size[0], height) - tops
        across = np.minimum(lefts + size[1], width) - lefts
        coverage = np.outer(down, across) / (size[0] * size[1])
    else:
        coverage = coverage_of(tissue, tops, lefts, size)
    kept = np.argwhere(coverage >= min(min_coverage, 1 - 1e-6)).astype(np.int32)
    return PatchGrid(
        size_px, mpp_um, effective, stride, kept, coverage[kept[:, 0], kept[:, 1]].astype(np.float32), coverage.size
    )


def _piece_by_piece(
    tissue: TissueMask,
    size_px: int,
    mpp_um: float,
    effective: tuple[float, float],
    stride: tuple[float, float],
    min_coverage: float,
) -> PatchGrid:
    """Lay a grid over the bounding box of each piece of tissue; pieces touch at edges or corners."""
    from scipy import ndimage

    size = size_px * effective[0], size_px * effective[1]
    labelled: Any = ndimage.label(tissue.mask, np.ones((3, 3), int))
    labels, _ = labelled
    origins, kept, coverages, candidates = [], [], [], 0
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        piece = TissueMask(labels[box] == number, tissue.mpp_um)
        corner = [part.start * mpp for part, mpp in zip(box, tissue.mpp_um, strict=True)]
        # The piece's corner, on a whole pixel; the remainder shifts the cells against the mask.
        origin = [int(np.floor(um / mpp + _NEARLY)) * mpp for um, mpp in zip(corner, effective, strict=True)]
        ends = [part.stop * mpp for part, mpp in zip(box, tissue.mpp_um, strict=True)]
        tops, lefts = (
            np.arange(max(1, int(np.ceil((end - start) / step - _NEARLY)))) * step + start - um
            for end, start, um, step in zip(ends, origin, corner, stride, strict=True)
        )
        coverage = coverage_of(piece, tops, lefts, size)
        places = np.argwhere(coverage > min(min_coverage, 1 - 2 * _NEARLY) + _NEARLY).astype(np.int32)
        origins.append(origin)
        kept.append(places)
        coverages.append(coverage[places[:, 0], places[:, 1]])
        candidates += coverage.size
    number_of = np.repeat(np.arange(len(kept), dtype=np.int32), [len(places) for places in kept])
    none = np.zeros((0, 2), np.int32)
    return PatchGrid(
        size_px,
        mpp_um,
        effective,
        stride,
        np.concatenate([none, *kept]),
        np.concatenate([none[:, 0], *coverages]).astype(np.float32),
        candidates,
        number_of,
        np.asarray(origins, np.float64).reshape(-1, 2),
    )


def _starts(length: float, stride: float, pixel: float) -> NDArray[np.float64]:
    """List where patches begin: as long as at least one whole pixel of the patch lies on the slide."""
    count = max(1, int(np.ceil((length - pixel * 0.999) / stride)))
    return np.arange(count, dtype=np.float64) * np.float64(stride)


def coverage_of(
    tissue: TissueMask, tops: NDArray[np.float64], lefts: NDArray[np.float64], size: tuple[float, float]
) -> NDArray[np.float64]:
    """Measure the share of tissue in each patch exactly, parts of mask pixels included.

    Args:
        tissue: Mask of the tissue, from the corner that the places are counted from.
        tops: Upper edges in µm.
        lefts: Left edges in µm.
        size: Height and width of a patch in µm.

    Returns:
        float64 [tops, lefts].
    """
    summed = np.zeros((tissue.mask.shape[0] + 1, tissue.mask.shape[1] + 1))
    np.cumsum(np.cumsum(tissue.mask, axis=0, dtype=np.float64), axis=1, out=summed[1:, 1:])

    def rows(edges: NDArray[Any], table: NDArray[Any], pixel: float) -> NDArray[Any]:
        at = np.clip(edges / pixel, 0, table.shape[0] - 1)
        low = np.minimum(at.astype(np.int64), max(table.shape[0] - 2, 0))
        part = (at - low)[:, None]
        return table[low] * (1 - part) + table[low + 1] * part

    down = rows(tops + size[0], summed, tissue.mpp_um[0]) - rows(tops, summed, tissue.mpp_um[0])
    both = rows(lefts + size[1], down.T, tissue.mpp_um[1]) - rows(lefts, down.T, tissue.mpp_um[1])
    return np.asarray(both.T * (tissue.mpp_um[0] * tissue.mpp_um[1]) / (size[0] * size[1]), np.float64)


def _morton(places: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Interleave the bits of row and column."""
    code = np.zeros(len(places), np.uint64)
    for bit in range(31):
        for axis in range(2):
            code |= ((places[:, axis].astype(np.uint64) >> np.uint64(bit)) & np.uint64(1)) << np.uint64(2 * bit + axis)
    return code


# Stream the patches of a slide: one at a time, each stored tile decoded once, in bounded memory.
#
# Patches come row by row, so that neighbours find the tiles they share still decoded. What is held is the patch
# itself and the reader's cache (`settings.slide_cache_bytes`); two rows of stored tiles of a 100,000 px wide slide
# are 154 MB. Where they do not fit, tiles at the seam of two rows of patches are decoded twice.


def iter_patches(
    reader: SlideReader, grid: PatchGrid, patches: Sequence[Patch] | None = None
) -> Iterator[tuple[Patch, NDArray[np.uint8]]]:
    """Read the patches of a grid.

    Args:
        reader: The slide.
        grid: Grid of the slide's patches.
        patches: Patches that are read, in this order; all of the grid, row by row, if None. Give each process a run of
            rows.

    Yields:
        Each patch with its pixels: RGB uint8 [size_px, size_px, 3], an array of its own.

    Raises:
        MedclipError: For the first patch whose stored pixels are damaged.
    """
    size, mpp = grid.size_px, grid.mpp_um
    for patch in grid if patches is None else patches:
        yield patch, reader.read(patch.top_um, patch.left_um, size, size, mpp)


def slide_patches(
    paths: Path | str | Sequence[Path | str],
    settings: Settings | None = None,
    *,
    size_px: int = 256,
    mpp_um: float = 0.5,
    overlap_px: int = 0,
    min_coverage: float = 0.5,
    tissue: TissueOptions | TissueMask | None = None,
) -> Iterator[tuple[Patch, NDArray[np.uint8]]]:
    """Open a slide, find its tissue and read every patch on it.

    Args:
        paths: One file, or all files of a DICOM slide.
        settings: Limits, and the µm/px of slides that do not say.
        size_px: Rows and columns of a patch.
        mpp_um: Scale of a patch in µm/px.
        overlap_px: Rows and columns that neighbours share.
        min_coverage: Least share of a patch that is tissue.
        tissue: Mask of the tissue (`geojson.from_geojson` reads a pathologist's outlines), or constants of the finder.

    Yields:
        Each patch with its pixels: RGB uint8 [size_px, size_px, 3].

    Raises:
        MedclipError: NO_TISSUE if there is nothing to read, with what the tissue finder says; WRONG_USE for the mask of
            another slide; what opening and reading raise.

    Example:
        >>> import tempfile
        >>> from examples.make_phantoms import slide
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     patches = slide_patches(slide(Path(folder) / "slide.tiff"))
        ...     patch, pixels = next(patches)
        >>> pixels.shape, round(patch.coverage, 1)
        ((256, 256, 3), 0.9)
    """
    with open_slide(paths, settings) as reader:
        mask = _checked(tissue, reader) if isinstance(tissue, TissueMask) else find_tissue(reader, tissue)
        grid = make_grid(reader, mask, size_px=size_px, mpp_um=mpp_um, overlap_px=overlap_px, min_coverage=min_coverage)
        if not len(grid):
            raise no_tissue(mask.problem, mask.pen_fraction, grid.candidates)
        yield from iter_patches(reader, grid)


def _checked(tissue: TissueMask, reader: SlideReader) -> TissueMask:
    """Refuse a mask that does not cover the slide: it was drawn on another one."""
    sides = zip(tissue.mask.shape, tissue.mpp_um, reader.size_um, strict=True)
    if any(abs(pixels * mpp - side) > 2 * mpp for pixels, mpp, side in sides):
        raise MedclipError(
            Reason.WRONG_USE, "the tissue mask is not as large as the slide; it was made of another slide."
        )
    return tissue


def no_tissue(problem: str, pen_fraction: float, candidates: int) -> MedclipError:
    """Make the error for a slide without a single patch."""
    pen = f"pen marks on {pen_fraction:.0%} of it" if pen_fraction > 0.01 else ""
    places = f"none of {count(candidates, 'place')}" if candidates else ""
    remark = f" ({', '.join(filter(None, (places, pen)))})" if places or pen else ""
    return MedclipError(
        Reason.NO_TISSUE,
        problem or f"no tissue was found on the slide{remark}.",
        hint="Draw the tissue (GeoJSON) or choose patches yourself if there is some.",
    )
