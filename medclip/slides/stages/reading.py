"""What a reading process does with a slide: open it and find tissue and grid, then read patches block by block.

A process keeps its last slide open between jobs, with the tiles it has decoded. Blocks are squares of the grid, so that
what neighbours share is decoded once where they lie in one block. No torch here.

Slides on slow storage are copied to a quick disk first: the next one while one is worked on. A copy is hashed as it is
written; where its hash is not the one that inspection found, the slide has changed, and it is refused as any that does.
Slides that have companions in a folder beside them (MIRAX, Hamamatsu VMS) are read where they are: a copy of one file
would be no slide.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.adapters.base import Source
from medclip.adapters.pathology import slide_files
from medclip.errors import MedclipError
from medclip.files.output import check_place, new_file
from medclip.files.readers.pool import ReadingPool
from medclip.files.recognise.inspect import CHANGED, is_unchanged
from medclip.imaging.slides.patch_grid import PatchGrid, make_grid
from medclip.imaging.slides.readers.backend import SlideSpec
from medclip.imaging.slides.readers.open import DAMAGED, open_slide, readable_overview
from medclip.imaging.slides.readers.pyramid import SlideReader
from medclip.imaging.slides.stain import (
    StainEstimate,
    StainMethod,
    StainOptions,
    White,
    normalise_stain,
    slide_stain,
    slide_white,
)
from medclip.imaging.slides.tissue.find import TissueMask, find_tissue, overview_mpp, tissue_of
from medclip.imaging.slides.tissue.glass import WHITE
from medclip.sample import NO_STAMP, View
from medclip.settings import Settings
from medclip.slides.stages.options import GridOptions

if TYPE_CHECKING:
    from medclip.models.inputs.preprocess import Images, Preprocess


BLOCK_SIDE = 8
"""Patches along one side of a block: 64 are read, encoded and kept at once; a kill costs those under way."""
_DISAGREE = 0.02
"""Share by which two statements of a scale may differ and still be one: scanners of one magnification do."""


@dataclass(frozen=True, eq=False)
class SeenSlide:
    """A slide as its first reading has it."""

    reader: SlideReader
    tissue: TissueMask | None
    """None where an earlier stage laid the grid."""
    grid: PatchGrid | None
    """None where only tissue was asked for."""
    mpp_source: str
    """Who says what a pixel measures: file, table or option."""
    notes: tuple[str, ...]
    num_damaged: int = 0
    """Parts of the overview that could not be read."""
    stain: StainEstimate | None = None
    """None where none was asked for, or it cannot be estimated: patches are encoded as they were scanned then."""
    white: White = WHITE
    """Value of bare glass, where it was asked for and can be measured."""
    wait_s: float = 0.0
    work_s: float = 0.0


@dataclass(frozen=True, eq=False)
class ReadBlock:
    """Patches as a model takes them."""

    images: Images
    """Of the patches that could be read, in their order."""
    lost: tuple[int, ...]
    """Places in the block, from 0, of those whose stored pixels are damaged."""
    quality_NQ: NDArray[np.float32]
    """[patches that could be read, measures]"""
    wait_s: float
    """Seconds without work: for storage, or for a core."""
    work_s: float
    """Seconds of computing: decoding, resizing, measuring."""


Measure = Callable[[NDArray[np.uint8], tuple[float, float], White], Sequence[float]]
"""From RGB uint8 [H, W, 3], row and column µm/px and the value of bare glass to numbers; importable by name."""


def see_slide(
    source: Source,
    settings: Settings,
    options: GridOptions,
    tissue: TissueMask | None = None,
    grid: PatchGrid | bool = True,
    stain: StainMethod | None = None,
    white: bool = False,
) -> SeenSlide:
    """Open a slide, find its tissue, lay its grid, estimate its stains.

    Args:
        source: Files of the slide, with what inspection found and what a table says of its scale.
        settings: Limits and the µm/px of slides that do not say.
        options: Options of tissue and grid.
        tissue: Mask of the tissue, if that is known.
        grid: The grid, if that is known; else whether to lay one.
        stain: Method by which patches are recoloured before they are encoded; None leaves them as they were scanned.
        white: Whether the value of bare glass is measured, too.

    Raises:
        MedclipError: NO_SCALE and TOO_SMALL for the scale; CHANGED where a file is not the one that was inspected; what
            opening raises.
    """
    with _Clock() as clock:
        check_unchanged(source)
        stated = source.mpp_um or settings.policy.mpp_um
        policy = replace(settings.policy, mpp_um=stated)
        reader = open_slide(slide_files(source), replace(settings, policy=policy))
        mpp = reader.mpp_um
        notes = list(reader.notes)
        if stated is not None and mpp is not None and mpp == reader.facts.mpp_um:
            stored_mpp = sum(mpp) / 2
            if abs(stated / stored_mpp - 1) > _DISAGREE:
                who = "the table" if source.mpp_um is not None else "--reading mpp_um"
                notes.append(f"{who} says {stated:g} µm/px and the file {stored_mpp:.4g}; the file's is used")
        num_damaged = 0
        laid = grid if isinstance(grid, PatchGrid) else None
        if tissue is None and laid is None:
            tissue, num_damaged = _tissue(reader, options)
        if num_damaged:
            notes.append(f"damaged parts of the overview, which are taken for glass: {num_damaged}")
        if grid is True:
            laid = make_grid(
                reader,
                tissue,
                size_px=options.size_px,
                mpp_um=options.mpp_um,
                overlap_px=options.overlap_px,
                min_coverage=options.min_coverage,
                by_piece=options.by_piece,
            )
        estimate = None
        if stain is not None and laid is not None and len(laid):
            estimate, problem = _stain(reader, laid, stain)
            notes += [f"{problem}; its patches are encoded as they were scanned"] if problem else []
        glass = _white(reader) if white else WHITE
        check_unchanged(source)
        reader.close()
    by = "file" if mpp == reader.facts.mpp_um else "table" if source.mpp_um is not None else "option"
    notes += tissue.notes if tissue else ()
    return SeenSlide(reader, tissue, laid, by, tuple(notes), num_damaged, estimate, glass, *clock.seconds)


def check_unchanged(source: Source) -> None:
    """Refuse files that are others now than those that were inspected.

    Raises:
        MedclipError: CHANGED.
    """
    for path, facts in zip(source.paths, source.facts, strict=True):
        if not is_unchanged(path, facts):
            raise CHANGED.error(path)


def blocks_of(grid: PatchGrid) -> list[NDArray[np.int64]]:
    """Return the patches of each block, as places in the grid, in reading order; blocks row by row of blocks.

    Of a grid that is counted piece by piece, what small pieces have goes into one block.
    """
    if not len(grid):
        return []
    rows, columns = (grid.kept // BLOCK_SIDE).astype(np.int64).T
    number = rows * (columns.max() + 1) + columns
    if grid.piece is not None:
        number += grid.piece.astype(np.int64) * (number.max() + 1)
    order = np.argsort(number, kind="stable")
    squares = np.split(order, np.flatnonzero(np.diff(number[order])) + 1)
    return squares if grid.piece is None else _joined(squares)


def _joined(squares: Iterable[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """Join blocks with those that follow, as long as none has more patches than a full one."""
    blocks: list[list[NDArray[np.int64]]] = []
    num = 0
    for square in squares:
        if not blocks or num + len(square) > BLOCK_SIDE**2:
            blocks.append([])
            num = 0
        blocks[-1].append(square)
        num += len(square)
    return [np.concatenate(block) for block in blocks]


def read_block(
    spec: SlideSpec,
    corners_um_N2: NDArray[np.float64],
    size_px: int,
    mpp_um: float,
    effective_mpp_um: tuple[float, float],
    preprocess: Preprocess | None,
    measure: Measure | None = None,
    stain: StainEstimate | None = None,
    white: White = WHITE,
) -> ReadBlock:
    """Read some patches of a slide and bring them to a model's size.

    Args:
        spec: The slide.
        corners_um_N2: Top and left of each patch in µm, float64 [N, 2].
        size_px: Rows and columns of a patch.
        mpp_um: The scale that was asked for.
        effective_mpp_um: Row and column µm/px of the pixels.
        preprocess: Preprocessing of the model; None keeps patches as they are.
        measure: Function that measures each patch as it is read; None measures nothing.
        stain: Estimate of the slide's stains: patches are recoloured by it, after they were measured.
        white: Value of the slide's bare glass.

    Raises:
        MedclipError: What is no damage of single tiles: a file that is gone, a codec that is missing.
    """
    images: list[NDArray[np.uint8]] = []
    measures: list[Sequence[float]] = []
    lost: list[int] = []
    with _Clock() as clock:
        reader = _kept_open(spec)
        for place, (top, left) in enumerate(corners_um_N2):
            try:
                pixels = reader.read(float(top), float(left), size_px, size_px, mpp_um)
            except MedclipError as error:
                if error.reason not in DAMAGED:
                    raise
                lost.append(place)
                continue
            if measure is not None:
                measures.append(measure(pixels, effective_mpp_um, white))
            if stain is not None:
                pixels = normalise_stain(pixels, stain)
            images.append(pixels if preprocess is None else _as_model_sees(pixels, effective_mpp_um, preprocess))
        quality = np.asarray(measures, np.float32).reshape(len(images), len(measures[0]) if measures else 0)
    together: Any = tuple(images) if preprocess is None or not images else preprocess.together(images)
    return ReadBlock(together, tuple(lost), quality, *clock.seconds)


def _as_model_sees(
    pixels: NDArray[np.uint8], effective_mpp_um: tuple[float, float], preprocess: Preprocess
) -> NDArray[np.uint8]:
    """Return a patch at the model's size: the view that the adapter of slides would make of it."""
    rows_mm, columns_mm = (round(value / 1000, 9) for value in effective_mpp_um)
    return preprocess.to_array(View(pixels, (0.0, 255.0), spacing_mm=(rows_mm, columns_mm)))


_OPEN: list[SlideReader] = []
"""The slide that this process read last."""


def _kept_open(spec: SlideSpec) -> SlideReader:
    if _OPEN and _OPEN[0].spec == spec:
        return _OPEN[0]
    for reader in _OPEN:
        reader.close()
    _OPEN[:] = [SlideReader(spec)]
    return _OPEN[0]


def _tissue(reader: SlideReader, options: GridOptions) -> tuple[TissueMask, int]:
    """Find tissue; where stored tiles of the overview are damaged, what can be read of it counts."""
    try:
        return find_tissue(reader, options.tissue), 0
    except MedclipError as error:
        if error.reason not in DAMAGED:
            raise
    wanted = overview_mpp(reader, options.tissue)
    overview, num_damaged = readable_overview(reader, wanted)
    return tissue_of(overview, reader.effective_mpp(wanted), options.tissue), num_damaged


def _stain(reader: SlideReader, grid: PatchGrid, method: StainMethod) -> tuple[StainEstimate | None, str]:
    """Estimate a slide's stains; without an estimate say why."""
    try:
        estimate = slide_stain(reader, grid, StainOptions(method))
    except MedclipError as error:
        if error.reason not in DAMAGED:
            raise
        return None, "its stains cannot be estimated: its overview is damaged"
    if estimate.problem:
        return None, f"its stains cannot be estimated: {estimate.problem}"
    return estimate, ""


def _white(reader: SlideReader) -> White:
    """Measure the value of bare glass; the usual one where the overview is damaged or shows none."""
    try:
        return slide_white(reader) or WHITE
    except MedclipError as error:
        if error.reason not in DAMAGED:
            raise
        return WHITE


class _Clock:
    """Seconds inside, told apart by whether this thread computed."""

    def __enter__(self) -> _Clock:
        self._wall, self._cpu = time.perf_counter(), time.thread_time()
        return self

    def __exit__(self, *_: object) -> None:
        work = time.thread_time() - self._cpu
        self.seconds = (max(0.0, time.perf_counter() - self._wall - work), work)


_WITH_COMPANIONS = (".mrxs", ".vms", ".vmu", ".ini", ".xml")
_PIECE_BYTES = 8 << 20


class Staging:
    """Copies of slides on a quick disk.

    Args:
        folder: Folder of the copies: one that is there, and of which only what is put there is removed.
    """

    def __init__(self, folder: Path) -> None:
        check_place(folder)
        self._folder = folder / "medclip-staged"
        self._copier = ThreadPoolExecutor(1, thread_name_prefix="medclip-staging")

    def see(self, key: str, source: Source, pool: ReadingPool, arguments: tuple[Any, ...]) -> Future[SeenSlide]:
        """Copy a slide, and have its copy opened in a reading process."""

        def work() -> SeenSlide:
            staged = self._copy(key, source)
            return pool.submit(see_slide, staged, *arguments[1:], urgent=True).result()

        return self._copier.submit(work)

    def remove(self, key: str) -> None:
        """Remove the copy of a slide."""
        shutil.rmtree(self._folder / key, ignore_errors=True)

    def close(self) -> None:
        """Remove all copies."""
        self._copier.shutdown(wait=False, cancel_futures=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _copy(self, key: str, source: Source) -> Source:
        if any(path.suffix.lower() in _WITH_COMPANIONS for path in source.paths):
            return source
        target = self._folder / key
        copies = []
        for number, (path, facts) in enumerate(zip(source.paths, source.facts, strict=True)):
            copy = target / f"{number}{path.suffix}"
            digest = hashlib.sha256()
            try:
                original = path.open("rb")
            except OSError:
                raise CHANGED.error(path) from None
            with original, new_file(copy) as draft, draft.open("wb") as written:
                while piece := original.read(_PIECE_BYTES):
                    digest.update(piece)
                    written.write(piece)
            if facts.sha256 and digest.hexdigest() != facts.sha256:
                raise CHANGED.error(path)
            copies.append(copy)
        facts = tuple(replace(facts_of_file, stamp=NO_STAMP) for facts_of_file in source.facts)
        return replace(source, paths=tuple(copies), facts=facts)
