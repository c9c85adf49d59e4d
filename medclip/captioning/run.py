"""Choose patches of each slide, and have them captioned: the two stages of a run that read slides and ask an agent.

Reading processes read and measure while the model or the agent works. Each slide that was chosen from, and each patch
that has its text, is noted in the journal at once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.captioning.agents.agent import AgentRefused, CaptionAgent, CaptionedPatch, Room, caption_patch
from medclip.captioning.journal import Journal
from medclip.captioning.patch_reading import AT_ONCE, LookedAt, ReadPatch, look_at_patches, read_patch
from medclip.captioning.selection.choose import ChosenPatch, SelectionOptions, choose_patches
from medclip.captioning.selection.region_grid import RegionGrid, lay_region_grid
from medclip.captioning.slide_list import ListedSlide
from medclip.errors import MedclipError, Problem, Reason
from medclip.files.readers.pool import ReadingPool
from medclip.imaging.slides.quality import FLAGS
from medclip.imaging.slides.readers.open import open_slide
from medclip.imaging.slides.readers.pyramid import SlideReader
from medclip.imaging.slides.stain.estimate import StainEstimate, StainMethod, StainOptions
from medclip.imaging.slides.stain.normalise import slide_stain
from medclip.imaging.slides.tissue.find import find_tissue
from medclip.progress import Progress
from medclip.sample import View
from medclip.settings import Settings


@dataclass(frozen=True)
class PathgenOptions:
    """All that decides which patches are captioned."""

    size_px: int = 336
    mpp_um: float = 0.5
    """168 µm to a side: the field of PathGen's 672 px at 40x, on every slide."""
    min_coverage: float = 0.5
    selection: SelectionOptions = field(default_factory=SelectionOptions)
    refused: tuple[str, ...] = tuple(FLAGS)
    """Flags of quality that no chosen patch has."""
    stain: StainMethod | None = None
    """How colours are made alike before patches are encoded; records keep the pixels as they were scanned."""


@contextmanager
def opened(slide: ListedSlide, settings: Settings) -> Iterator[SlideReader]:
    """Open a slide with the scale that the table says.

    Raises:
        MedclipError: What opening raises, and the slide's own problem.
    """
    if slide.problem is not None:
        raise slide.problem.error(slide.name)
    if slide.mpp_um is not None:
        settings = replace(settings, policy=replace(settings.policy, mpp_um=slide.mpp_um))
    with open_slide(slide.paths, settings) as reader:
        yield reader


def select_slides(
    slides: Iterable[ListedSlide],
    model: Any,
    options: PathgenOptions,
    journal: Journal,
    settings: Settings,
    progress: Progress,
) -> None:
    """Choose patches of the slides that were not chosen from yet, and note them.

    A slide that cannot be read, or has no tissue, is noted with its reason; it ends nothing.
    """
    pending = [slide for slide in slides if journal.slide(slide.key) is None]
    progress.stage("Choosing patches of slides", len(pending))
    if not pending:
        return
    with ReadingPool.of(settings, note=progress.note) as pool:
        for slide in pending:
            started = time.monotonic()
            try:
                facts = _select(slide, model, options, settings, pool)
            except MedclipError as error:
                if error.reason in (Reason.DISK_FULL, Reason.WRITE_ERROR, Reason.OUT_OF_MEMORY, Reason.MISSING_CODEC):
                    raise
                problem = error.problem()
                facts = {"status": str(problem.status), "reason": str(problem.reason), "message": problem.message}
            journal.note_slide(slide.key, {**facts, "seconds": round(time.monotonic() - started, 3)})
            progress.step()


def _select(
    slide: ListedSlide, model: Any, options: PathgenOptions, settings: Settings, pool: ReadingPool
) -> dict[str, Any]:
    """Return what is noted of a slide."""
    with opened(slide, settings) as reader:
        tissue = find_tissue(reader)
        grid = lay_region_grid(
            reader, tissue, size_px=options.size_px, mpp_um=options.mpp_um, min_coverage=options.min_coverage
        )
        if not grid.patches:
            reason = tissue.problem or f"no tissue was found on the slide (none of {grid.candidates} places)."
            problem = Problem(Reason.NO_TISSUE, reason[:1].lower() + reason[1:])
            return {"status": "skipped", "reason": str(problem.reason), "message": problem.message}
        stain = slide_stain(reader, grid, StainOptions(options.stain or "macenko"))
        features, rows, counts = _features(reader, grid, stain, model, options, pool)
        mpp_um = reader.mpp_um
    attributes, findings = model.encode_text(slide.prompts.attributes), model.encode_text(slide.prompts.findings)
    chosen = choose_patches(features, attributes, findings, options.selection)
    assert mpp_um is not None  # the grid could not have been laid
    return {
        "status": "done",
        "num_patches": len(grid.patches),
        "num_encoded": len(rows),
        "lost": counts,
        "stain_problem": stain.problem,
        "slide_mpp_um": list(mpp_um),
        "effective_mpp_um": list(grid.effective_mpp_um),
        "chosen": [_chosen(one, grid, rows[one.row], slide) for one in chosen],
    }


def _chosen(one: ChosenPatch, grid: RegionGrid, row: int, slide: ListedSlide) -> dict[str, Any]:
    patch = grid.patches[row]
    attribute = None if one.attribute is None else slide.prompts.attributes[one.attribute]
    return {
        **{"number": row, "top_um": patch.top_um, "left_um": patch.left_um, "coverage": round(patch.coverage, 4)},
        **{"branches": list(one.branches), "attribute": attribute, "cluster": one.cluster},
        **{"attribute_score": round(one.attribute_score, 4), "finding_score": round(one.finding_score, 4)},
    }


def _features(
    reader: SlideReader,
    grid: RegionGrid,
    stain: StainEstimate,
    model: Any,
    options: PathgenOptions,
    pool: ReadingPool,
) -> tuple[NDArray[np.float32], list[int], dict[str, int]]:
    """Encode the patches that are good enough; with their rows, and what the others were lost for."""
    corners = [(patch.top_um, patch.left_um) for patch in grid.patches]
    recoloured = stain if options.stain is not None else None
    jobs = [
        (
            reader,
            corners[at : at + AT_ONCE],
            grid.size_px,
            grid.mpp_um,
            frozenset(options.refused),
            stain.white,
            recoloured,
        )
        for at in range(0, len(corners), AT_ONCE)
    ]
    parts: list[NDArray[np.float32]] = [np.zeros((0, model.dim), np.float32)]
    rows: list[int] = []
    lost: Counter[str] = Counter()
    row = 0
    for future in pool.map(look_at_patches, jobs, ahead=4):
        seen: list[LookedAt] = future.result()
        images = []
        for one in seen:
            if one.pixels is None:
                lost["damaged" if one.damaged else one.flags[0]] += 1
            else:
                images.append(model.preprocess.to_array(View(one.pixels, (0.0, 255.0))))
                rows.append(row)
            row += 1
        if images:
            parts.append(model.encode_image(model.preprocess.together(images)))
    return np.concatenate(parts), rows, dict(sorted(lost.items()))


def caption_slides(
    slides: Iterable[ListedSlide],
    agent: CaptionAgent,
    room: Room,
    options: PathgenOptions,
    journal: Journal,
    settings: Settings,
    progress: Progress,
) -> None:
    """Have the chosen patches captioned that have no text yet, and note each.

    Raises:
        MedclipError: Of an agent that is gone. What it answered before is noted.
    """
    pending = [
        (slide, facts, [one for one in facts["chosen"] if one["number"] not in numbers])
        for slide in slides
        if (facts := journal.slide(slide.key)) is not None and facts["status"] == "done"
        for numbers in [journal.numbers(slide.key)]
    ]
    total = sum(len(facts["chosen"]) for _, facts, _ in pending)
    progress.stage("Captioning patches", total, total - sum(len(todo) for _, _, todo in pending))
    if not any(todo for _, _, todo in pending):
        return
    with ReadingPool.of(settings, note=progress.note) as pool, ThreadPoolExecutor(max(1, agent.at_once)) as threads:
        for slide, _, todo in pending:
            if todo:
                _caption_slide(slide, todo, agent, room, options, journal, settings, progress, pool, threads)


def _caption_slide(
    slide: ListedSlide,
    todo: list[dict[str, Any]],
    agent: CaptionAgent,
    room: Room,
    options: PathgenOptions,
    journal: Journal,
    settings: Settings,
    progress: Progress,
    pool: ReadingPool,
    threads: ThreadPoolExecutor,
) -> None:
    with opened(slide, settings) as reader:
        stain = None
        if agent.measures:
            grid = lay_region_grid(
                reader,
                find_tissue(reader),
                size_px=options.size_px,
                mpp_um=options.mpp_um,
                min_coverage=options.min_coverage,
            )
            stain = slide_stain(reader, grid, StainOptions())
        jobs = (
            (reader, (one["top_um"], one["left_um"]), options.size_px, options.mpp_um, stain, agent.measures)
            for one in todo
        )
        waiting: list[tuple[dict[str, Any], ReadPatch, Future[Any]]] = []
        try:
            for one, future in zip(todo, pool.map(read_patch, jobs, ahead=2 * settings.workers), strict=True):
                patch: ReadPatch = future.result()
                shown = CaptionedPatch(
                    patch.pixels, options.mpp_um, slide.prompts, patch.measured, patch.measured_again
                )
                waiting.append((one, patch, threads.submit(caption_patch, agent, shown, room)))
                while len(waiting) >= max(1, agent.at_once):
                    _note(slide, *waiting.pop(0), journal, progress)
            while waiting:
                _note(slide, *waiting.pop(0), journal, progress)
        except BaseException:
            # What others of the patches at work were answered is paid for: it is kept.
            for one, patch, answer in waiting:
                if not answer.cancel() and answer.exception() is None:
                    _note(slide, one, patch, answer, journal, progress)
            raise


def _note(
    slide: ListedSlide,
    one: dict[str, Any],
    patch: ReadPatch,
    answer: Future[Any],
    journal: Journal,
    progress: Progress,
) -> None:
    """Note what an agent made of a patch."""
    facts: dict[str, Any] = {"pixels_sha256": patch.sha256}
    if patch.measured is not None:
        facts["measured"] = {k: v if v == v else None for k, v in asdict(patch.measured).items()}  # NaN is no JSON
    try:
        written = answer.result()
    except AgentRefused as refusal:
        facts["refused"] = str(refusal)
    else:
        facts |= {"draft": written.draft, "revised": written.revised, "caption": written.caption}
        facts |= {"num_edits": len(written.edits), "usage": asdict(written.usage)}
    journal.note_text(slide.key, one["number"], facts)
    progress.step()
