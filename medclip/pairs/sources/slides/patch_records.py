"""Turn texts into records: check them, leave out what was said before, and write the rest as shards, split by patient.

The pixels of each record are read from the slide once more and compared with the hash of what the agent was shown; so
what a record names is what it holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medclip.adapters.registry import preprocessing_of
from medclip.errors import MedclipError, Reason
from medclip.files.output import new_folder
from medclip.files.pseudonyms import keyed_hash
from medclip.files.readers.pool import ReadingPool
from medclip.pairs.journal import Journal
from medclip.pairs.sources.slides.patch_captions import PathgenOptions, ReadPatch, opened, read_patch
from medclip.pairs.sources.slides.slide_list import ListedSlide
from medclip.pairs.words.agent import CaptionAgent
from medclip.pairs.words.patch_caption_check import Room, check_patch_caption, words_of
from medclip.progress import Progress
from medclip.sample import Modality
from medclip.settings import Settings
from medclip.shards.folder import NUM_VIEWS, counts_of, write_index
from medclip.shards.sample_json import to_json
from medclip.shards.stored_data import STORED_AS, Format, encode
from medclip.shards.writing.build import sample_key
from medclip.shards.writing.splits import split_of
from medclip.shards.writing.tar import SHARD_NAME, TarShard
from medclip.text.captions.record import CaptionRecord

SHARDS = "shards"
SLIDE = "slide"
"""Key of a sample's JSON that says where its pixels are from."""
_ADAPTER = "pathology"


@dataclass(frozen=True)
class PatchRecord:
    """A row of records.parquet: one patch with its caption, and where it is from."""

    key: str
    """Of the sample in the shards."""
    slide: str
    split: str
    top_um: float
    left_um: float
    size_px: int
    mpp_um: float
    """What `SlideReader.read` is to be asked for."""
    x_px: int
    """Corner in pixels of the finest resolution, as PathGen's `position` has it."""
    y_px: int
    pixels_sha256: str
    organ: str
    branches: str
    attribute: str | None
    attribute_score: float
    finding_score: float
    cluster: int | None
    agent: str
    caption: str
    num_tokens: int
    num_edits: int


@dataclass(frozen=True)
class RejectedCaption:
    """A row of rejects.parquet: one chosen patch that became no record."""

    slide: str
    top_um: float
    left_um: float
    reason: str
    detail: str
    caption: str | None


@dataclass
class Writing:
    """What is gathered while records are written."""

    records: list[PatchRecord] = field(default_factory=list)
    rejects: list[RejectedCaption] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    shards: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class RecordForm:
    """How records lie in shards."""

    key: bytes
    """Of the hashes of patients."""
    splits: Mapping[str, float]
    """Shares by patient."""
    seed: int
    """Seed of the split."""
    stored: Format
    """png or jpeg."""
    samples_per_shard: int
    """Records in one tar."""


def write_records(
    out: Path,
    slides: Sequence[ListedSlide],
    agent: CaptionAgent,
    room: Room,
    options: PathgenOptions,
    journal: Journal,
    form: RecordForm,
    *,
    identity: Mapping[str, Any],
    settings: Settings,
    progress: Progress,
) -> Writing:
    """Write the shards of a run into `out/shards`, whole or not at all; equal journals give equal bytes.

    Returns:
        Records and rejects. Without a single record no shards are written.
    """
    writing, seen = Writing(), set[str]()
    counts = sum(len(journal.numbers(slide.key)) for slide in slides)
    progress.stage("Writing records", counts)
    side = {slide.key: split_of(slide.patient, form.splits, form.seed) for slide in slides}
    names = [name for name in form.splits if name in side.values()]
    accepted: dict[str, list[tuple[dict[str, Any], dict[str, Any], str]]] = {}
    for slide in slides:
        for one, text, problem in _checked(slide, agent, room, journal, seen):
            if problem is None:
                number = sample_key(f"{slide.sha256}\0{one['top_um']!r}\0{one['left_um']!r}\0{options}", generic=False)
                accepted.setdefault(slide.key, []).append((one, text, number))
            else:
                _reject(writing, slide, one, problem, text.get("caption"))
                progress.step()
    if not accepted:
        return writing
    laid_out = (form.stored, form.samples_per_shard, form.key)
    with new_folder(out / SHARDS) as work, ReadingPool.of(settings, note=progress.note) as pool:
        for split in names:
            of_split = [slide for slide in slides if side[slide.key] == split and slide.key in accepted]
            _write_split(
                split, of_split, accepted, work, writing, laid_out, agent, room, options, pool, settings, progress
            )
        if writing.samples:
            patients: dict[str, set[str]] = {}
            for sample in writing.samples:
                patients.setdefault(sample["split"], set()).add(sample["patient"])
            write_index(
                work,
                writing.samples,
                [],
                shards=writing.shards,
                counts={
                    "samples": len(writing.samples),
                    "by_split": counts_of(writing.samples, "split"),
                    "by_modality": counts_of(writing.samples, "modality"),
                    "by_reason": {},  # every record can be read; rejected captions have a table of their own
                    "patients_by_split": {name: len(patients[name]) for name in sorted(patients)},
                    "duplicates_across_splits": 0,
                },
                preprocessing={str(Modality.PATHOLOGY): preprocessing_of(str(Modality.PATHOLOGY))},
                options={"splits": dict(form.splits), "seed": form.seed, "pathgen": dict(identity)},
                columns=[],
            )
    return writing


def _checked(
    slide: ListedSlide, agent: CaptionAgent, room: Room, journal: Journal, seen: set[str]
) -> Iterator[tuple[dict[str, Any], dict[str, Any], tuple[str, str] | None]]:
    """Yield the chosen patches of a slide with their texts, and what is wrong with each."""
    choice = journal.choice(slide.key)
    if slide.problem is not None or choice is None:
        return
    # The measuring agent sees no image: a report gives it nothing more to claim.
    allowed = agent.allowed if agent.measures else agent.allowed.with_texts(slide.prompts.findings)
    texts = dict(journal.texts(slide.key))
    for one in choice["chosen"]:
        text = texts.get(one["number"])
        if text is None:
            continue
        if "refused" in text:
            yield one, text, ("refused", text["refused"])
            continue
        problem = check_patch_caption(text["caption"], room, allowed)
        words = words_of(text["caption"])
        if problem is None and words in seen:
            problem = ("duplicate", "an earlier patch has the same caption")
        seen |= {words} if problem is None else set()
        yield one, text, problem


def _reject(
    writing: Writing, slide: ListedSlide, one: Mapping[str, Any], problem: tuple[str, str], caption: str | None
) -> None:
    place = one["top_um"], one["left_um"]
    writing.rejects.append(RejectedCaption(slide.key, *place, *problem, caption))


def _write_split(
    split: str,
    slides: Sequence[ListedSlide],
    accepted: Mapping[str, list[tuple[dict[str, Any], dict[str, Any], str]]],
    work: Path,
    writing: Writing,
    form: tuple[Format, int, bytes],
    agent: CaptionAgent,
    room: Room,
    options: PathgenOptions,
    pool: ReadingPool,
    settings: Settings,
    progress: Progress,
) -> None:
    """Write the records of one split."""
    stored, samples_per_shard, key = form
    shard: TarShard | None = None
    number = 0
    try:
        for slide in slides:
            with opened(slide, settings) as reader:
                mpp_um = reader.mpp_um
                assert mpp_um is not None
                jobs = (
                    (reader, (one["top_um"], one["left_um"]), options.size_px, options.mpp_um, None, False)
                    for one, _, _ in accepted[slide.key]
                )
                futures = pool.map(read_patch, jobs, ahead=2 * settings.workers)
                for (one, text, name), future in zip(accepted[slide.key], futures, strict=True):
                    progress.step()
                    patch: ReadPatch = future.result()
                    if patch.sha256 != text["pixels_sha256"]:
                        raise MedclipError(
                            Reason.CHANGED,
                            "the pixels of a patch are not those that were captioned: the slide or its reader changed.",
                            where=slide.name,
                            hint="Name a new folder, and caption the slide again.",
                        )
                    record = _record(slide, one, text, name, split, mpp_um, agent, room, options)
                    if shard is None:
                        shard = TarShard(work / SHARD_NAME.format(split=split, number=number))
                        number += 1
                    writing.records.append(record)
                    writing.samples.append(_sample(shard, slide, record, patch, stored, key))
                    if shard.num_samples >= samples_per_shard:
                        _close(shard, split, writing)
                        shard = None
        if shard is not None:
            _close(shard, split, writing)
            shard = None
    finally:
        if shard is not None:
            shard.__exit__(None, None, None)


def _record(
    slide: ListedSlide,
    one: Mapping[str, Any],
    text: Mapping[str, Any],
    name: str,
    split: str,
    mpp_um: tuple[float, float],
    agent: CaptionAgent,
    room: Room,
    options: PathgenOptions,
) -> PatchRecord:
    return PatchRecord(
        key=name,
        slide=slide.key,
        split=split,
        top_um=one["top_um"],
        left_um=one["left_um"],
        size_px=options.size_px,
        mpp_um=options.mpp_um,
        x_px=round(one["left_um"] / mpp_um[1]),
        y_px=round(one["top_um"] / mpp_um[0]),
        pixels_sha256=text["pixels_sha256"],
        organ=slide.prompts.organ,
        branches=" ".join(one["branches"]),
        attribute=one["attribute"],
        attribute_score=one["attribute_score"],
        finding_score=one["finding_score"],
        cluster=one["cluster"],
        agent=agent.name,
        caption=text["caption"],
        num_tokens=room.count(text["caption"]),
        num_edits=text["num_edits"],
    )


def _sample(
    shard: TarShard, slide: ListedSlide, record: PatchRecord, patch: ReadPatch, stored: Format, key: bytes
) -> dict[str, Any]:
    """Write one sample; its row of samples.parquet."""
    patient = keyed_hash("patient", slide.patient, key)
    meta = {
        "key": record.key,
        "sha256": slide.sha256,
        "patient": patient,
        "adapter": _ADAPTER,
        "preprocessing": preprocessing_of(str(Modality.PATHOLOGY)),
        "source": slide.source,
        "license": slide.license,
        "burned_in": None,
    }
    where = {
        name: getattr(record, name)
        for name in (
            "slide",
            "top_um",
            "left_um",
            "size_px",
            "mpp_um",
            "x_px",
            "y_px",
            "pixels_sha256",
            "organ",
            "agent",
        )
    }
    captioned = CaptionRecord(Modality.PATHOLOGY, texts=(record.caption,))
    members = [
        (STORED_AS[stored], encode(patch.pixels, stored, 95)),
        ("json", to_json(captioned, meta, {SLIDE: where})),
        ("txt", record.caption.encode()),
    ]
    offset, size = shard.add(record.key, members)
    return {
        "key": record.key,
        "split": record.split,
        "shard": shard.path.name,
        "offset": offset,
        "size": size,
        "sha256": slide.sha256,
        "patient": patient,
        "modality": str(Modality.PATHOLOGY),
        "adapter": _ADAPTER,
        "source": slide.source,
        "license": slide.license,
        NUM_VIEWS: 1,
    }


def _close(shard: TarShard, split: str, writing: Writing) -> None:
    sha256, size = shard.close()
    writing.shards.append(
        {"name": shard.path.name, "split": split, "samples": shard.num_samples, "bytes": size, "sha256": sha256}
    )
