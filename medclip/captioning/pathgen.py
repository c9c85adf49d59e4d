"""From a folder of slides to shards of patches with captions: list, choose, caption, write; each stage goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medclip.captioning.agents.agent import CaptionAgent, Room, Usage
from medclip.captioning.journal import Journal
from medclip.captioning.result import PathgenResult, SlideStatus
from medclip.captioning.run import PathgenOptions, caption_slides, select_slides
from medclip.captioning.slide_list import ListedSlide, list_slides
from medclip.captioning.write_records import PatchRecord, RejectedCaption, Writing, write_records
from medclip.errors import MedclipError, Reason
from medclip.files.locks import held_folder
from medclip.files.output import check_run, claim_run
from medclip.files.pseudonyms import hashed_path, keyed_hash, load_key
from medclip.files.tables.write import write_rows
from medclip.models.packs.manifest import pack_digest
from medclip.progress import Progress
from medclip.settings import Settings
from medclip.shards.stored_image import STORED_AS, Format
from medclip.shards.writing.splits import DEFAULT_SPLITS, split_of
from medclip.text.tokenizers.tokenizer import Tokenizer

WHAT, NOTE = "pathgen run", "run.json"
SLIDES, RECORDS, REJECTS = "slides.parquet", "records.parquet", "rejects.parquet"
_WORDS_AT_ONCE = 10


@dataclass(frozen=True)
class PathgenCall:
    """What a run is called with."""

    root: Path
    out: Path
    agent: CaptionAgent
    options: PathgenOptions = field(default_factory=PathgenOptions)
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


def room_of(tokenizer: Tokenizer, most: int | None = None) -> Room:
    """Return how long captions may be for a tokenizer.

    Tokenizers cut what is too long, so that long texts are counted some words at a time.

    Args:
        tokenizer: Of the text tower.
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
        call: What is wanted.
        model: A loaded model with a text tower: it chooses, and its tokenizer counts.
        settings: Limits.
        progress: Told how far the run is.

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
    if call.stored not in STORED_AS or call.samples_per_shard < 1:
        raise MedclipError(Reason.WRONG_USE, "patches are stored as png or jpeg, and a shard holds at least one.")
    room = room_of(model.tokenizer, call.max_tokens)
    key = load_key(settings, path=call.key_file)
    identity = _identity(call, model, room)
    check_run(call.out, WHAT, identity, NOTE)  # before anything is read
    slides = list_slides(
        call.root,
        table=call.table,
        organ=call.organ,
        attributes=call.attributes,
        key=key,
        settings=settings,
        exclude=call.out,
        progress=progress,
    )
    with ExitStack() as stack:
        claim_run(call.out, WHAT, identity, NOTE)
        stack.enter_context(held_folder(call.out))
        journal = stack.enter_context(Journal(call.out))
        select_slides(slides, model, call.options, journal, settings, progress)
        caption_slides(slides, call.agent, room, call.options, journal, settings, progress)
        writing = write_records(
            call.out,
            slides,
            call.agent,
            room,
            call.options,
            journal,
            key=key,
            splits=call.splits,
            seed=call.seed,
            stored=call.stored,
            samples_per_shard=call.samples_per_shard,
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


def _identity(call: PathgenCall, model: Any, room: Room) -> dict[str, Any]:
    """Return what makes two runs the same. Slides may come and go: each is noted by itself."""
    return {
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
    facts = journal.slide(slide.key) or {}
    lost: Mapping[str, int] = facts.get("lost", {})
    mpp_um = facts.get("slide_mpp_um")
    return SlideStatus(
        slide=slide.key,
        file=hashed_path(slide.name, key) if call.hash_paths else slide.name,
        status=facts["status"],
        reason=facts.get("reason"),
        message=facts.get("message"),
        patient=keyed_hash("patient", slide.patient, key),
        split=split_of(slide.patient, call.splits, call.seed),
        organ=slide.prompts.organ,
        num_findings=len(slide.prompts.findings),
        mpp_um=None if mpp_um is None else sum(mpp_um) / 2,
        num_patches=facts.get("num_patches", 0),
        num_encoded=facts.get("num_encoded", 0),
        num_lost=sum(lost.values()),
        lost_for=", ".join(f"{name} {number}" for name, number in Counter(lost).most_common()),
        num_chosen=len(facts.get("chosen", ())),
        num_records=sum(record.slide == slide.key for record in writing.records),
        num_rejected=sum(reject.slide == slide.key for reject in writing.rejects),
        seconds=facts["seconds"],
    )
