"""Choose patches of each slide by its vectors, and have them captioned: the two stages of a run behind the embedding.

Reading processes read the chosen patches, hash and measure them while the agent works: no torch here. What was chosen
of a slide, and each patch that has its text, is noted in the journal at once.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.files.readers.pool import ReadingPool
from medclip.imaging.slides.nuclei import NucleiMeasurements, measure_nuclei
from medclip.imaging.slides.patch_grid import Patch
from medclip.imaging.slides.patch_quality import FLAGS
from medclip.imaging.slides.readers.open import open_slide
from medclip.imaging.slides.readers.pyramid import SlideReader
from medclip.imaging.slides.stain import StainEstimate, StainMethod, StainOptions, slide_stain
from medclip.pairs.journal import Journal
from medclip.pairs.selection.patches import ChosenPatch, SelectionOptions, choose_patches
from medclip.pairs.sources.slides.slide_list import ListedSlide
from medclip.pairs.words.agent import AgentRefused, CaptionAgent, CaptionedPatch, caption_patch
from medclip.pairs.words.patch_caption_check import Room
from medclip.progress import Progress
from medclip.settings import Settings
from medclip.slides.slide_features import SlideFeatures
from medclip.slides.slide_store import SlideStore
from medclip.slides.stages.stage_files import raised_flags


@dataclass(frozen=True, eq=False)
class ReadPatch:
    """One patch as an agent sees it."""

    pixels: NDArray[np.uint8]
    sha256: str
    measured: NucleiMeasurements | None = None
    measured_again: NucleiMeasurements | None = None


def pixels_sha256(pixels: NDArray[np.uint8]) -> str:
    """Hash the pixels of a patch: RGB, row by row."""
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def read_patch(
    reader: SlideReader,
    corner_um: tuple[float, float],
    size_px: int,
    mpp_um: float,
    stain: StainEstimate | None,
    measures: bool,
) -> ReadPatch:
    """Read one patch, hash it, and measure it for agents that ask for it."""
    with reader:
        pixels = reader.read(*corner_um, size_px, size_px, mpp_um)
    measured: Any = (None, None)
    if measures:
        measured = measure_nuclei(pixels, mpp_um, stain), measure_nuclei(pixels, mpp_um)
    return ReadPatch(pixels, pixels_sha256(pixels), *measured)


def reread_pixels(reader: SlideReader, record: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Read the pixels of a record again: from the slide that it names, and from nowhere else.

    Args:
        reader: Reader of the record's slide, opened with the scale that it was opened with (of a slide that states
            none).
        record: A row of records.parquet, or what a sample's JSON has under `slide`.

    Returns:
        RGB uint8 [size_px, size_px, 3]: the very pixels.

    Raises:
        MedclipError: CHANGED where they are others; what reading raises.
    """
    pixels = reader.read(record["top_um"], record["left_um"], record["size_px"], record["size_px"], record["mpp_um"])
    if pixels_sha256(pixels) != record["pixels_sha256"]:
        raise MedclipError(Reason.CHANGED, "the slide has other pixels there than the record: it is another slide.")
    return pixels


@dataclass(frozen=True)
class PathgenOptions:
    """All that decides which patches are captioned, beside where they lie."""

    size_px: int = 336
    mpp_um: float = 0.5
    """168 µm to a side: the field of PathGen's 672 px at 40x, on every slide."""
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


def choose_from_slides(
    slides: Iterable[ListedSlide],
    store: SlideStore,
    model: Any,
    options: PathgenOptions,
    journal: Journal,
    progress: Progress,
) -> None:
    """Choose patches of the slides that were not chosen from yet, and note them.

    Raises:
        MedclipError: Where a file of the store cannot be read.
    """
    pending = [slide for slide in slides if slide.problem is None and journal.choice(slide.key) is None]
    progress.stage("Choosing patches of slides", len(pending))
    attributes: dict[tuple[str, ...], NDArray[np.floating[Any]]] = {}
    for slide in pending:
        phrases = slide.prompts.attributes
        if phrases not in attributes:
            attributes[phrases] = model.encode_text(phrases)
        findings = model.encode_text(slide.prompts.findings)
        features = store.read(slide.row.key)
        journal.note_choice(slide.key, _choice(slide, features, attributes[phrases], findings, options))
        progress.step()


def _choice(
    slide: ListedSlide,
    features: SlideFeatures,
    attributes_AD: NDArray[np.floating[Any]],
    findings_FD: NDArray[np.floating[Any]],
    options: PathgenOptions,
) -> dict[str, Any]:
    """Return what is noted of a slide: the patches that were chosen, and what others were lost for."""
    flags = [[flag for flag in flags if flag in options.refused] for flags in raised_flags(features.quality["flags"])]
    rows = np.array([row for row, refused in enumerate(flags) if not refused], np.int64)
    lost = Counter(refused[0] for refused in flags if refused)
    if features.num_lost:
        lost["damaged"] = features.num_lost
    vectors_ND = np.asarray(features.features_ND[rows], np.float32)
    chosen = choose_patches(vectors_ND, attributes_AD, findings_FD, options.selection)
    return {
        "num_encoded": len(rows),
        "lost": dict(sorted(lost.items())),
        "chosen": [_chosen(one, features, int(rows[one.row]), slide) for one in chosen],
    }


def _chosen(one: ChosenPatch, features: SlideFeatures, row: int, slide: ListedSlide) -> dict[str, Any]:
    attribute = None if one.attribute is None else slide.prompts.attributes[one.attribute]
    top_um, left_um = features.corners_um_N2[row].tolist()
    return {
        **{"number": row, "top_um": top_um, "left_um": left_um, "coverage": round(float(features.coverage_N[row]), 4)},
        **{"branches": list(one.branches), "attribute": attribute, "cluster": one.cluster},
        **{"attribute_score": round(one.attribute_score, 4), "finding_score": round(one.finding_score, 4)},
    }


@dataclass(frozen=True, eq=False)
class _Places:
    """The patches of a store's slide as what stains are measured on."""

    features: SlideFeatures

    @property
    def size_px(self) -> int:
        return self.features.size_px

    @property
    def mpp_um(self) -> float:
        return self.features.mpp_um

    def spread(self, count: int) -> tuple[Patch, ...]:
        """Choose up to `count` patches at equal steps, in the order of the store."""
        num = len(self.features)
        steps = range(num) if count >= num else ((np.arange(count) + 0.5) * num / count).astype(np.int64)
        corners, coverage = self.features.corners_um_N2, self.features.coverage_N
        places = ((int(n), float(corners[n, 0]), float(corners[n, 1]), float(coverage[n])) for n in steps)
        return tuple(Patch(0, n, top, left, share) for n, top, left, share in places)


def caption_slides(
    slides: Iterable[ListedSlide],
    store: SlideStore,
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
        (slide, choice, [one for one in choice["chosen"] if one["number"] not in numbers])
        for slide in slides
        if slide.problem is None and (choice := journal.choice(slide.key)) is not None
        for numbers in [journal.numbers(slide.key)]
    ]
    total = sum(len(choice["chosen"]) for _, choice, _ in pending)
    progress.stage("Captioning patches", total, total - sum(len(todo) for _, _, todo in pending))
    if not any(todo for _, _, todo in pending):
        return
    with ReadingPool.of(settings, note=progress.note) as pool, ThreadPoolExecutor(max(1, agent.at_once)) as threads:
        for slide, _, todo in pending:
            if todo:
                _caption_slide(slide, store, todo, agent, room, options, journal, settings, progress, pool, threads)


def _caption_slide(
    slide: ListedSlide,
    store: SlideStore,
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
            stain = slide_stain(reader, _Places(store.read(slide.row.key)), StainOptions())
        jobs = (
            (reader, (one["top_um"], one["left_um"]), options.size_px, options.mpp_um, stain, agent.measures)
            for one in todo
        )
        waiting: list[tuple[dict[str, Any], ReadPatch, Future[Any]]] = []
        try:
            for one, future in zip(todo, pool.map(read_patch, jobs, ahead=2 * settings.workers), strict=True):
                patch: ReadPatch = future.result()
                captioned = CaptionedPatch(
                    patch.pixels, options.mpp_um, slide.prompts, patch.measured, patch.measured_again
                )
                waiting.append((one, patch, threads.submit(caption_patch, agent, captioned, room)))
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
