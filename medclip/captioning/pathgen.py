"""From a folder of slides to shards of patches with captions: embed, choose, caption, write; each stage goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from medclip.captioning.agents.agent import CaptionAgent, Room, Usage
from medclip.captioning.journal import Journal
from medclip.captioning.result import PathgenResult, SlideStatus
from medclip.captioning.run import PathgenOptions, caption_slides, choose_from_slides
from medclip.captioning.slide_list import OF_VECTORS, ListedSlide, check_prompts, list_slides
from medclip.captioning.write_records import PatchRecord, RecordForm, RejectedCaption, Writing, write_records
from medclip.errors import MedclipError, Reason
from medclip.files.disk.locks import held_folder
from medclip.files.output import check_run, claim_run, remove_drafts
from medclip.files.pseudonyms import hashed_path, keyed_hash, load_key
from medclip.files.tables.manifest import Manifest, read_manifest
from medclip.files.tables.write import write_rows
from medclip.models.packs.manifest import pack_digest
from medclip.progress import Progress
from medclip.runs.call import Call, pack_of_run
from medclip.runs.planning.options import ScoreOptions
from medclip.settings import Settings
from medclip.shards.stored_image import Format
from medclip.shards.writing.splits import DEFAULT_SPLITS, check_shares, split_of
from medclip.slides.stages.options import NO_LIMIT_BYTES, GridOptions
from medclip.slides.stages.run_stage import EMBED, refuse_other_models, run_stage
from medclip.slides.store.slide_store import DONE, SlideStore, open_slide_store
from medclip.text.tokenizers.tokenizer import Tokenizer

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
        MedclipError: WRONG_USE for those of another model, or of other patches than the call asks for; as
            `open_slide_store`.
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
