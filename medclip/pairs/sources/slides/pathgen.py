"""From a folder of slides to shards of patches with captions: embed, choose, caption, write; each stage goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from medclip.errors import MedclipError, Reason
from medclip.exit_codes import ExitCode
from medclip.files.locks import held_folder
from medclip.files.output import check_run, claim_run, remove_drafts
from medclip.files.pseudonyms import hashed_path, keyed_hash, load_key
from medclip.files.tables.manifest import Manifest, read_manifest
from medclip.files.tables.write import write_rows
from medclip.models.packs.manifest import pack_digest
from medclip.pairs.journal import Journal
from medclip.pairs.sources.slides.patch_captions import PathgenOptions, caption_slides, choose_from_slides
from medclip.pairs.sources.slides.patch_records import (
    SHARDS,
    PatchRecord,
    RecordForm,
    RejectedCaption,
    Writing,
    write_records,
)
from medclip.pairs.sources.slides.slide_list import OF_VECTORS, ListedSlide, check_prompts, list_slides
from medclip.pairs.words.agent import CaptionAgent, Usage
from medclip.pairs.words.patch_caption_check import Room
from medclip.progress import Progress
from medclip.result import Result, named_counts
from medclip.runs.call import Call, pack_of_run
from medclip.runs.planning.options import ScoreOptions
from medclip.settings import Settings
from medclip.shards.stored_data import Format
from medclip.shards.writing.splits import DEFAULT_SPLITS, check_shares, split_of
from medclip.slides.slide_store import DONE, SlideStore, open_slide_store
from medclip.slides.stages.options import NO_LIMIT_BYTES, GridOptions
from medclip.slides.stages.run_stage import EMBED, refuse_other_models, run_stage
from medclip.text.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class SlideStatus:
    """A row of slides.parquet: one slide, and what became of it."""

    slide: str
    file: str
    """Relative to the folder that was named; a keyed hash with `hash_paths`."""
    status: str
    """done, skipped or failed."""
    reason: str | None
    message: str | None
    patient: str
    """Keyed hash."""
    split: str
    organ: str
    num_findings: int
    mpp_um: float | None
    num_patches: int
    """On tissue."""
    num_encoded: int
    """Those that are good enough."""
    num_lost: int
    """Those that are damaged or have a flag."""
    lost_for: str
    num_chosen: int
    num_records: int
    num_rejected: int


@dataclass(frozen=True, eq=False, repr=False)
class PathgenResult(Result):
    """What a run of captions made."""

    folder: Path
    slides: tuple[SlideStatus, ...]
    records: tuple[PatchRecord, ...]
    rejects: tuple[RejectedCaption, ...]
    usage: Usage
    """What the agent took, in all runs on this folder."""
    already_finished: bool = False

    @property
    def shards(self) -> Path:
        """The folder to train on; it is there once there is a record."""
        return self.folder / SHARDS

    @property
    def counts(self) -> Mapping[str, int]:
        """Slides by status."""
        return {s: sum(row.status == s for row in self.slides) for s in ("done", "skipped", "failed")}

    @property
    def rejected_by_reason(self) -> Mapping[str, int]:
        """Captions that became no record."""
        return dict(sorted(Counter(reject.reason for reject in self.rejects).items()))

    @property
    def exit_code(self) -> ExitCode:
        """Return 3 where slides failed."""
        return ExitCode.SOME_FAILED if self.counts["failed"] else ExitCode.COMPLETE

    def _facts(self) -> dict[str, object]:
        return {
            "slides": named_counts({k: v for k, v in self.counts.items() if v}),
            "records": f"{len(self.records)} ({named_counts(Counter(record.split for record in self.records))})",
            "rejected": named_counts(self.rejected_by_reason),
            "agent": f"{self.usage.calls} calls, {self.usage.prompt_tokens + self.usage.completion_tokens} tokens, "
            f"{self.usage.seconds:.1f} s",
            "shards": self.shards if self.records else "none",
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return [asdict(record) for record in self.records[:most]]

    def to_dict(self) -> dict[str, Any]:
        """Return counts as plain data for JSON."""
        return {
            "out": str(self.folder),
            "slides": dict(self.counts),
            "records": len(self.records),
            "chosen": sum(row.num_chosen for row in self.slides),
            "rejected": dict(self.rejected_by_reason),
            "usage": asdict(self.usage),
            "exit_code": int(self.exit_code),
        }


WHAT, NOTE = "pathgen run", "run.json"
SLIDES, RECORDS, REJECTS = "slides.parquet", "records.parquet", "rejects.parquet"
VECTORS = "slides"
"""Folder of the vectors, where no store is named: what `medclip slides embed` writes."""
_WORDS_AT_ONCE = 10


@dataclass(frozen=True)
class PathgenCall:
    """What a run is called with."""

    root: Path
    out: Path
    agent: CaptionAgent
    options: PathgenOptions = field(default_factory=PathgenOptions)
    store: Path | None = None
    """Vectors of the slides, from `medclip slides embed`; None computes them, in the output folder."""
    table: Any = None
    organ: str | None = None
    attributes: Mapping[str, tuple[str, ...]] | None = None
    max_tokens: int | None = None
    """Of a caption; what the model's text tower takes where None."""
    splits: Mapping[str, float] = field(default_factory=lambda: DEFAULT_SPLITS)
    seed: int = 0
    stored: Format = "png"
    samples_per_shard: int = 500
    hash_paths: bool = False
    key_file: Path | None = None
    device: str = "cpu"
    batch_size: int | None = None
    """Images in one forward pass of the embedding; None for the model's own number."""
    stage_to: Path | None = None
    """A folder on a quick disk that slides are copied to while they are embedded."""


def room_of(tokenizer: Tokenizer, most: int | None = None) -> Room:
    """Return how long captions may be for a tokenizer.

    Tokenizers cut what is too long, so that long texts are counted some words at a time.

    Args:
        tokenizer: Tokenizer of the text tower.
        most: Tokens, begin and end included; its context where None.
    """

    def tokens(text: str) -> int:
        ids = tokenizer.encode([text])[0]
        present = np.flatnonzero(ids != tokenizer.pad_id)
        return int(present[-1] - present[0] + 1) if len(present) else 0

    frame = tokens("")

    def count(text: str) -> int:
        words = text.split()
        parts = [" ".join(words[at : at + _WORDS_AT_ONCE]) for at in range(0, len(words), _WORDS_AT_ONCE)]
        return frame + sum(tokens(part) - frame for part in parts)

    return Room(min(most or tokenizer.context_length, tokenizer.context_length), count)


def run_pathgen(call: PathgenCall, model: Any, settings: Settings, progress: Progress) -> PathgenResult:
    """Carry out a run, or go on with it.

    Args:
        call: Call that says what is wanted.
        model: A loaded model with a text tower: it chooses, and its tokenizer counts.
        settings: Limits.
        progress: Progress bar of the run.

    Raises:
        MedclipError: WRONG_USE for a model without words and other calls that cannot be carried out; OUTPUT_IN_USE for
            a folder of another run; BUSY; READ_ERROR for an endpoint that is gone; what listing and writing raise.
    """
    if not model.has_text:
        raise MedclipError(
            Reason.WRONG_USE,
            f"{model.name} is an image tower alone: patches are chosen by words.",
            hint="Name a model with a text tower: --model PACK.",
        )
    check_shares(call.splits)
    room = room_of(model.tokenizer, call.max_tokens)
    settings = replace(settings, max_file_bytes=NO_LIMIT_BYTES)
    key = load_key(settings, path=call.key_file)
    manifest = call.table if call.table is None or isinstance(call.table, Manifest) else read_manifest(call.table)
    check_prompts(manifest, call.organ, call.attributes)  # a slip in a word is no slide's fault
    options = call.options
    grid = GridOptions(options.size_px, options.mpp_um, by_piece=True)
    store = None if call.store is None else _given_store(call.store, model, options)
    identity = _identity(call, model, room, grid.digest if store is None else store.run["grid"])
    refuse_other_models(pack_of_run(model, settings, call.device))
    check_run(call.out, WHAT, identity, NOTE)  # before anything is read
    with ExitStack() as stack:
        claim_run(call.out, WHAT, identity, NOTE)
        stack.enter_context(held_folder(call.out))
        remove_drafts(call.out)
        store = store or _embed(call, model, grid, manifest, settings, progress)
        slides = list_slides(
            call.root,
            store,
            manifest=manifest,
            organ=call.organ,
            attributes=call.attributes,
            key=key,
            settings=settings,
            exclude=call.out,
            progress=progress,
        )
        journal = stack.enter_context(Journal(call.out))
        choose_from_slides(slides, store, model, options, journal, progress)
        caption_slides(slides, store, call.agent, room, options, journal, settings, progress)
        writing = write_records(
            call.out,
            slides,
            call.agent,
            room,
            call.options,
            journal,
            RecordForm(key, call.splits, call.seed, call.stored, call.samples_per_shard),
            identity=identity,
            settings=settings,
            progress=progress,
        )
        usage = _usage(slides, journal)
        rows = tuple(_status(slide, journal, writing, call, key) for slide in slides)
    write_rows(call.out / SLIDES, SlideStatus, rows)
    write_rows(call.out / RECORDS, PatchRecord, writing.records)
    write_rows(call.out / REJECTS, RejectedCaption, writing.rejects)
    return PathgenResult(call.out, rows, tuple(writing.records), tuple(writing.rejects), usage)


def _embed(
    call: PathgenCall, model: Any, grid: GridOptions, manifest: Manifest | None, settings: Settings, progress: Progress
) -> SlideStore:
    """Compute the vectors of the slides, or go on with them; slides that came since are taken in."""
    # Organs, findings and patients of the table may change: only what vectors depend on makes it another run.
    scales = None if manifest is None else manifest.only(*OF_VECTORS)
    table = None if scales is None or not scales.rows else scales
    stage = Call(
        call.root,
        call.out / VECTORS,
        model=model,
        options=ScoreOptions(table=table, hash_paths=call.hash_paths),
        key_file=call.key_file,
        settings=settings,
        progress=progress,
        add=True,
        device=call.device,
        batch_size=call.batch_size,
        exclude=(call.out,),
    )
    return run_stage(stage, EMBED, grid, qc=True, stain=call.options.stain, stage_to=call.stage_to).store


def _given_store(folder: Path, model: Any, options: PathgenOptions) -> SlideStore:
    """Open the vectors that were named.

    Raises:
        MedclipError: WRONG_USE for those of another model, or of other patches than the call asks for.
    """
    store = open_slide_store(folder)
    store.check_pack(pack_digest(model.path))
    if not store.run.get("qc"):
        raise MedclipError(
            Reason.WRONG_USE,
            "the quality of these patches was not measured, so that none could be left out for it.",
            where=folder,
            hint="Embed the slides again with --qc, or let pathgen do it: leave --store out.",
        )
    has = store.run["options"]["size_px"], store.run["options"]["mpp_um"], store.run.get("stain")
    if has != (options.size_px, options.mpp_um, options.stain):
        stain = f" --stain {has[2]}" if has[2] else ""
        raise MedclipError(
            Reason.WRONG_USE,
            "the call asks for patches of another size, scale or stain than this store has.",
            where=folder,
            hint=f"Its own are --size-px {has[0]} --patch-mpp-um {has[1]:g}{stain}.",
        )
    return store


def _identity(call: PathgenCall, model: Any, room: Room, grid: str) -> dict[str, Any]:
    """Return what makes two runs the same. Slides may come and go: each is noted by itself."""
    return {
        "grid": grid,
        "model": pack_digest(model.path),
        "agent": dict(call.agent.identity),
        "options": asdict(call.options),
        "organ": call.organ,
        "attributes": {name: list(phrases) for name, phrases in sorted((call.attributes or {}).items())},
        "max_tokens": room.most,
        "splits": dict(call.splits),
        "seed": call.seed,
        "stored": call.stored,
        "samples_per_shard": call.samples_per_shard,
        "hash_paths": call.hash_paths,
    }


def _usage(slides: tuple[ListedSlide, ...], journal: Journal) -> Usage:
    total = Usage()
    for slide in slides:
        for _, text in journal.texts(slide.key):
            total += Usage(**text.get("usage", {}))
    return total


def _status(slide: ListedSlide, journal: Journal, writing: Writing, call: PathgenCall, key: bytes) -> SlideStatus:
    choice = (journal.choice(slide.key) if slide.problem is None else None) or {}
    lost: Mapping[str, int] = choice.get("lost", {})
    problem, row = slide.problem, slide.row
    return SlideStatus(
        slide=slide.key,
        file=hashed_path(slide.name, key) if call.hash_paths else slide.name,
        status=DONE if problem is None else str(problem.status),
        reason=None if problem is None else str(problem.reason),
        message=None if problem is None else problem.message,
        patient=keyed_hash("patient", slide.patient, key),
        split=split_of(slide.patient, call.splits, call.seed),
        organ=slide.prompts.organ,
        num_findings=len(slide.prompts.findings),
        mpp_um=row.mpp_um,
        num_patches=row.num_patches or 0,
        num_encoded=choice.get("num_encoded", 0),
        num_lost=sum(lost.values()),
        lost_for=", ".join(f"{name} {number}" for name, number in Counter(lost).most_common()),
        num_chosen=len(choice.get("chosen", ())),
        num_records=sum(record.slide == slide.key for record in writing.records),
        num_rejected=sum(reject.slide == slide.key for reject in writing.rejects),
    )
