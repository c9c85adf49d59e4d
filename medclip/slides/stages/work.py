"""Work through slides: read them in the reading processes, encode their patches, keep what a stage makes of each.

It takes the place of `run_chunks` in a run of `medclip.runs.conduct`: plan, ledger, rows and reading processes are the
same. What differs is inside a slide: its patches go block by block into an unfinished slide on the disk
(`unfinished.py`), the next blocks being read while the model computes, and those of the next slide behind them.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medclip.adapters.base import Source, combined_sha256
from medclip.errors import MedclipError, Problem, Reason
from medclip.files.grouping.units import kind_of
from medclip.files.pseudonyms import keyed_hash
from medclip.files.recognise.sniff import Format
from medclip.files.recognise.tiff_directories import ends_early
from medclip.imaging.slides.patch_grid import PatchGrid, no_tissue
from medclip.imaging.slides.stain import StainMethod
from medclip.imaging.slides.tissue.find import TissueMask
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.planning.plan import Chunk
from medclip.runs.rows import DONE, ChunkResult, FileRow, UnitRow
from medclip.runs.units.chunk import ChunkWork, Context, Item, items_of
from medclip.runs.units.read_unit import Reading
from medclip.sample import Kind
from medclip.settings import Settings
from medclip.slides.stages.options import GridOptions
from medclip.slides.stages.reading import (
    ReadBlock,
    SeenSlide,
    Staging,
    blocks_of,
    check_unchanged,
    read_block,
    see_slide,
)
from medclip.slides.stages.shares import Shares
from medclip.slides.stages.unfinished import UnfinishedSlide

NO_SLIDE = Problem(Reason.NO_TASK, "it is no whole-slide image, and this command reads nothing else.")
CUT = Problem(Reason.TRUNCATED, "the TIFF ends too early: what it was is not known; copy it again from its source.")
_SUFFIXES = frozenset({".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide"})
"""Names that say that a file is a slide, where it is empty, or holds something else, and says nothing itself."""
_ONE_BY_ONE = (Reason.DECODER_CRASHED, Reason.TIMEOUT, Reason.TOO_LARGE, Reason.CORRUPT)
"""A block that ends so is read again patch by patch: one of them is the cause."""
_BLOCKS_AHEAD = 2
"""Blocks for each reading process that are read or wait; one of 256 px patches is 12.6 MB."""


@dataclass(eq=False)
class Slide:
    """One slide on its way through a stage."""

    chunk: Chunk
    item: Item
    source: Source
    key: str
    seeing: Future[SeenSlide] | None = None
    seen: SeenSlide | None = None
    unfinished: UnfinishedSlide | None = None
    rows: dict[str, Any] = field(default_factory=dict)
    """What the stage learnt of it, by columns of `SlideRow`."""

    @property
    def sha256(self) -> str:
        """Hash of its bytes; of several files the hash of their hashes."""
        return combined_sha256(self.source)


@dataclass(frozen=True, eq=False)
class Vectors:
    """The vectors of a slide that are to be computed."""

    unfinished: UnfinishedSlide
    """Where they go."""
    job: Callable[[NDArray[np.int64]], tuple[Any, ...]]
    """From places in the grid, int64 [P], to the arguments of `read_block`."""


class Stage(Protocol):
    """What a stage does with a slide."""

    @property
    def options(self) -> GridOptions:
        """Of tissue and grid."""
        ...

    @property
    def stain(self) -> StainMethod | None:
        """How patches are recoloured before they are encoded; None leaves them as they were scanned."""
        ...

    @property
    def white(self) -> bool:
        """Whether the value of bare glass is to be measured."""
        ...

    def known(self, slide: Slide) -> tuple[TissueMask | None, PatchGrid | bool]:
        """Return what earlier stages left of a slide: its mask, and its grid, or whether one is to be laid."""
        ...

    def begin(self, slide: Slide) -> Vectors | None:
        """Begin the vectors of a slide, or go on with them; None where the stage computes none."""
        ...

    def finish(self, slide: Slide) -> None:
        """Write what the stage makes of a slide."""
        ...

    def forget(self, slide: Slide) -> None:
        """Remove what there is of a slide that ended otherwise."""
        ...


@dataclass(frozen=True, eq=False)
class _Step:
    """A block of a slide that is being read; without a block, the slide's end."""

    slide: Slide
    block: int = -1
    rows: NDArray[np.int64] | None = None
    reading: Future[ReadBlock] | None = None
    job: Callable[[NDArray[np.int64]], tuple[Any, ...]] | None = None
    """As `Vectors` has it."""


class SlideWork:
    """Carries a stage out over the slides of a run.

    Args:
        stage: Stage that is carried out.
        context: Context of the run.
        ledger: Ledger of the run.
        commit: Function that commits the rows of each slide when it is finished.
        shares: Seconds by what they are spent on, which the work adds to.
        staging: Object that copies slides to a quick disk first; None reads them where they are.
    """

    def __init__(
        self,
        stage: Stage,
        context: Context,
        ledger: Ledger,
        commit: Callable[[ChunkResult], None],
        shares: Shares,
        staging: Staging | None = None,
    ) -> None:
        self._stage, self._context, self._ledger, self._write_rows = stage, context, ledger, commit
        self._shares, self._staging = shares, staging
        self._settings: Settings = context.settings
        self._encoding: deque[tuple[_Step, ReadBlock, Future[tuple[NDArray[np.float32], float]]]] = deque()

    def run(self, chunks: Iterator[Chunk]) -> None:
        """Work through all slides."""
        shares = self._shares
        ahead = _BLOCKS_AHEAD * self._settings.workers + self._context.num_encoders
        waiting: deque[_Step] = deque()
        with ExitStack() as stack:
            stack.callback(shares.end)
            stack.callback(self._close, waiting)
            for step in self._steps(self._slides(chunks)):
                waiting.append(step)
                while sum(one.reading is not None for one in waiting) > ahead or waiting[0].reading is None:
                    self._take(waiting.popleft())
                    if not waiting:
                        break
            while waiting:
                self._take(waiting.popleft())

    def _slides(self, chunks: Iterator[Chunk]) -> Iterator[Slide]:
        """Yield the slides that are not done; files that are none get their row at once."""
        for chunk in chunks:
            self._shares.begin()
            items = items_of(chunk)
            states = self._ledger.known([file.ref.name for item in items for file in item.files])
            others: list[Item] = []
            for item in items:
                states_of_files = [states.get(file.ref.name) for file in item.files]
                if all(file is not None and file.state >= DONE for file in states_of_files):
                    continue
                if item.problem is None and item.kind is not Kind.SLIDE:
                    item.problem = CUT if _is_cut(item) else NO_SLIDE
                if item.problem is not None:
                    others.append(item)
                    continue
                key = self._key(item)
                source = item.source_of_unit()
                yield Slide(chunk, item, source, key, rows={"key": key, "sha256": combined_sha256(source)})
            keys = {item.files[0].id: self._key(item) for item in others if _meant_as_slide(item)}
            self._commit(chunk, others, {number: {"key": key} for number, key in keys.items()})

    def _key(self, item: Item) -> str:
        return keyed_hash("slide", item.files[0].ref.name, self._context.key)

    def _steps(self, slides: Iterator[Slide]) -> Iterator[_Step]:
        """Yield the blocks of one slide after another, some slides being opened ahead."""
        opened: deque[Slide] = deque()
        for slide in slides:
            opened.append(slide)
            slide.seeing = self._see(slide)
            if len(opened) > (1 if self._staging else self._settings.workers):
                yield from self._blocks(opened.popleft())
        while opened:
            yield from self._blocks(opened.popleft())

    def _see(self, slide: Slide) -> Future[SeenSlide]:
        stage = self._stage
        arguments = slide.source, self._settings, stage.options, *stage.known(slide), stage.stain, stage.white
        if self._staging is None:
            return self._context.pool.submit(see_slide, *arguments, urgent=True)
        return self._staging.see(slide.key, slide.source, self._context.pool, arguments)

    def _blocks(self, slide: Slide) -> Iterator[_Step]:
        assert slide.seeing is not None
        try:
            seen = slide.seen = slide.seeing.result()
            self._shares.read_s += seen.wait_s
            self._shares.decode_s += seen.work_s
            slide.rows = _facts_of(seen) | slide.rows  # what an earlier stage knew of its tissue stays
            slide.item.problem = _without_tissue(seen)
        except MedclipError as error:
            self._fail(slide, error)
        if slide.item.problem is None:
            assert slide.seen is not None
            vectors = self._stage.begin(slide)
            if vectors is not None and slide.seen.grid is not None:
                slide.unfinished = vectors.unfinished
                done = slide.unfinished.blocks
                for number, rows in enumerate(blocks_of(slide.seen.grid)):
                    if number not in done and slide.item.problem is None:
                        reading = self._context.pool.submit(read_block, *vectors.job(rows))
                        yield _Step(slide, number, rows, reading, vectors.job)
        yield _Step(slide)

    def _take(self, step: _Step) -> None:
        slide = step.slide
        if step.reading is None or step.rows is None:
            self._end(slide)
            return
        if slide.item.problem is not None:
            step.reading.cancel()
            return
        try:
            block = self._read(step)
        except MedclipError as error:
            self._fail(slide, error)
            return
        self._shares.read_s += block.wait_s
        self._shares.decode_s += block.work_s
        self._shares.num_patches += len(step.rows)
        self._shares.enter_model()
        self._encoding.append((step, block, self._context.encoders.submit(self._encode, block)))
        while len(self._encoding) > 2 * self._context.num_encoders:
            self._deliver()

    def _read(self, step: _Step) -> ReadBlock:
        """Wait for a block; one that killed its process or took too long is read patch by patch."""
        assert step.reading is not None
        assert step.rows is not None
        assert step.job is not None
        try:
            return step.reading.result()
        except MedclipError as error:
            if error.reason not in _ONE_BY_ONE or len(step.rows) == 0:
                raise
        single: list[ReadBlock | None] = []
        for row in step.rows:
            try:
                reading = self._context.pool.submit(read_block, *step.job(row[None]))
                single.append(reading.result())
            except MedclipError as error:
                if error.reason not in _ONE_BY_ONE:
                    raise
                single.append(None)
        return _joined(single)

    def _encode(self, block: ReadBlock) -> tuple[NDArray[np.float32], float]:
        begun = time.perf_counter()
        try:
            return self._context.model.encode_image(block.images), time.perf_counter() - begun
        finally:
            self._shares.leave_model()

    def _deliver(self) -> None:
        """Keep the oldest block that was encoded."""
        step, block, future = self._encoding.popleft()
        vectors_ND, seconds = future.result()
        self._shares.model_s += seconds
        slide = step.slide
        if slide.item.problem is not None or slide.unfinished is None or step.rows is None:
            return
        if not np.isfinite(vectors_ND).all():
            slide.item.problem = Problem(Reason.NON_FINITE, "the model's vectors of its patches are not finite.")
            return
        with self._writing():
            slide.unfinished.add(step.block, step.rows, block.lost, vectors_ND, block.quality_NQ)
        self._context.progress.step(0, f"{self._shares.num_patches:,} patches")

    def _end(self, slide: Slide) -> None:
        """Finish a slide: write what the stage makes of it, and commit its rows."""
        while any(step.slide is slide for step, _, _ in self._encoding):
            self._deliver()
        with self._writing():
            try:
                if slide.item.problem is None:
                    check_unchanged(slide.source)
                    self._stage.finish(slide)
            except MedclipError as error:
                self._fail(slide, error)
            if slide.item.problem is not None:
                self._stage.forget(slide)
            elif slide.seen is not None:
                slide.item.reading = _reading(slide, self._stage.options)
            self._commit(slide.chunk, [slide.item], {slide.item.files[0].id: slide.rows})
            if slide.unfinished is not None:
                slide.unfinished.remove()
        if self._staging is not None:
            self._staging.remove(slide.key)
        slide.seen = slide.unfinished = None

    def _fail(self, slide: Slide, error: MedclipError) -> None:
        """Make an error a slide's; one that is not about its files goes on."""
        if error.reason in _OF_THE_RUN:
            raise error
        slide.item.problem = error.problem()
        slide.item.culprit = error.where if any(error.where == str(path) for path in slide.source.paths) else None

    def _commit(self, chunk: Chunk, items: list[Item], rows: dict[int, dict[str, Any]]) -> None:
        if not items:
            return
        work = ChunkWork(self._context, chunk, items)
        units = [unit for item in items if (unit := _unit_row(chunk, item)) is not None]
        result = work.result(units=units)
        files = tuple(_with_facts(row, rows.get(row.row)) for row in result.files)
        result = replace(result, files=files)
        self._write_rows(result)
        self._context.progress.step(sum(len(item.files) for item in items))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._shares.write_s += time.perf_counter() - begun

    def _close(self, waiting: deque[_Step]) -> None:
        """Keep what is complete of the slides under way, where a run is stopped."""
        open_slides = {id(step.slide): step.slide for step in [*waiting, *(step for step, _, _ in self._encoding)]}
        for slide in open_slides.values():
            if slide.unfinished is not None:
                slide.unfinished.save()


_OF_THE_RUN = (
    Reason.DISK_FULL,
    Reason.WRITE_ERROR,
    Reason.OUT_OF_MEMORY,
    Reason.WRONG_USE,
    Reason.OUTPUT_IN_USE,
    Reason.BUSY,
)
"""No slide's fault: they end the run, which goes on when it is called again."""


def _facts_of(seen: SeenSlide) -> dict[str, Any]:
    """Return the columns of `SlideRow` that a first reading knows."""
    height, width = seen.reader.size_um
    mpp = seen.reader.mpp_um or (0.0, 0.0)
    facts: dict[str, Any] = {
        "mpp_um": round(sum(mpp) / 2, 6),
        "mpp_source": seen.mpp_source,
        "height_um": round(height, 3),
        "width_um": round(width, 3),
        "decoder": seen.reader.facts.decoder or None,
        "notes": json.dumps(list(seen.notes), ensure_ascii=False) if seen.notes else None,
    }
    if seen.tissue is not None:
        facts |= {
            "tissue_share": round(seen.tissue.fraction, 6),
            "tissue_mm2": round(seen.tissue.area_mm2, 4),
            "pen_share": round(seen.tissue.pen_fraction, 6),
        }
    if seen.grid is not None:
        facts |= {"num_places": seen.grid.candidates, "num_patches": len(seen.grid)}
    return facts


def _without_tissue(seen: SeenSlide) -> Problem | None:
    """Return the problem of a slide where there is nothing to read."""
    if len(seen.grid) if seen.grid is not None else seen.tissue is not None and seen.tissue.mask.any():
        return None
    why, pen = ("", 0.0) if seen.tissue is None else (seen.tissue.problem, seen.tissue.pen_fraction)
    if seen.grid is None:
        return no_tissue(why or "no tissue was found on the slide.", pen, 0).problem()
    return no_tissue(why, pen, seen.grid.candidates).problem()


def _joined(single: list[ReadBlock | None]) -> ReadBlock:
    """Join patches that were read one by one; those that are None, or that lost theirs, are lost."""
    kept = [block for block in single if block is not None and not block.lost]
    lost = tuple(place for place, block in enumerate(single) if block is None or block.lost)
    images: list[Any] = [image for block in kept for image in block.images]
    quality = np.concatenate([block.quality_NQ for block in kept]) if kept else np.zeros((0, 0), np.float32)
    seconds = (sum(block.wait_s for block in kept), sum(block.work_s for block in kept))
    return ReadBlock(tuple(images), lost, quality, *seconds)


def _meant_as_slide(item: Item) -> bool:
    """Return whether a file that is not read is one of a slide, or would be if it were not damaged."""
    first = item.files[0]
    if item.problem is NO_SLIDE:
        return False
    if first.ref.path.suffix.lower() in _SUFFIXES or item.problem is CUT:
        return True
    return first.facts is not None and (first.facts.format is Format.SLIDE or kind_of(first.facts) is Kind.SLIDE)


def _is_cut(item: Item) -> bool:
    """Return whether a TIFF lacks its end, and with it perhaps all by which a slide is known."""
    facts = item.files[0].facts
    if facts is None or facts.format is not Format.TIFF:
        return False
    with suppress(OSError), item.files[0].ref.path.open("rb") as file:
        return ends_early(file)
    return False


def _reading(slide: Slide, options: GridOptions) -> Reading:
    """Return what the row of a file says of how a slide was read."""
    seen = slide.seen
    assert seen is not None
    steps = tuple(("note", note) for note in seen.notes)
    return Reading((), b"", False, "pathology", options.digest, seen.reader.facts.decoder, steps, None, None)


def _unit_row(chunk: Chunk, item: Item) -> UnitRow | None:
    """Return what the ledger keeps of a slide beside its file's row: whose it is."""
    if item.unit is None or item.study is None or item.kind is not Kind.SLIDE:
        return None
    study = chunk.plan.studies[item.study]
    sha256 = combined_sha256(item.source_of_unit())
    return UnitRow(item.files[0].id, study.key, study.patient, sha256, "", False, False, None, b"")


def _with_facts(row: FileRow, facts: dict[str, Any] | None) -> FileRow:
    return row if not facts else replace(row, headers=json.dumps(facts, ensure_ascii=False))
