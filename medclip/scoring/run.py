"""Score a folder: plan, read, encode, commit chunk by chunk, and write the tables.

Called again on the same output folder, a run goes on after its last finished chunk and ends in the same bytes, wherever
it was stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from medclip.adaptation.pack.pack_head import read_pack_text
from medclip.errors import MedclipError, Reason
from medclip.files.discover import LEDGER, walk
from medclip.files.output import claim_folder, disk_errors, make_folder, remove_drafts
from medclip.files.pseudonyms import hashed_path, load_key
from medclip.files.readers.pool import ReadingPool
from medclip.files.tables.manifest import Manifest, read_manifest
from medclip.models.devices import torch_threads
from medclip.models.parallel_encoding import encoder_threads
from medclip.progress import Progress, Silent
from medclip.runs.chunk import Context, run_chunks
from medclip.runs.identity import claim, run_identity
from medclip.runs.ledger import ChunkResult, Ledger
from medclip.runs.listing import Counter, Listing
from medclip.runs.look import Looker
from medclip.runs.options import DEFAULT_MODEL, ScoreOptions
from medclip.runs.parts import Parts
from medclip.runs.results import hashes_of, write_results
from medclip.runs.score_run import ScoreRun
from medclip.sample import Modality
from medclip.scoring.study_scores import StudyScores
from medclip.scoring.tasks import Scorer, asked_tasks, check_words, modality_task, score_named
from medclip.scoring.unlearned import question_notes
from medclip.settings import Settings
from medclip.text.vocabulary.own_words import Prompt, templates_of

Finish = Callable[[Ledger, Any, Path, tuple[str, str] | None], None]
"""Called with the complete ledger, the pack's card, the output folder, and the task and class that studies are to be
sorted by, e.g. to write a report."""


def run_scoring(
    root: Path,
    folder: Path,
    *,
    model: Any = DEFAULT_MODEL,
    options: ScoreOptions | None = None,
    key_file: Path | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
    add: bool = False,
    retry_failed: str | None = None,
    sort_by: str | None = None,
    finish: Finish | None = None,
) -> ScoreRun:
    """Score the files below a path into a folder.

    Args:
        root: A file or folder.
        folder: Output folder: new, empty, or holding this same run, which then goes on.
        model: Name or folder of a model pack, or a loaded model of one.
        options: What to score and how.
        key_file: Identity key to hash identifiers with, where it is not the one in the settings' home.
        settings: Limits and number of reading processes.
        progress: Told how far it is.
        add: Score files that came since an earlier call, and those that changed; rows of the others stay.
        retry_failed: Try the files that failed once more: those of a reason, or all for "".
        sort_by: Task, or task and class (TASK:CLASS), that `finish` is to sort studies by; no part of what the run is.
        finish: Called before the run counts as finished.

    Raises:
        MedclipError: MISSING_FILE, NOTHING_TO_DO, OUTPUT_IN_USE, WRONG_USE, TABLE_INVALID, DISK_FULL and what loading
            the model raises. A file that cannot be read raises nothing; it has its row.
    """
    from medclip.models.card import read_card
    from medclip.models.packs.pack import find_pack, verify_pack
    from medclip.version import __version__

    settings, progress, options = settings or Settings(), progress or Silent(), options or ScoreOptions()
    if "pixels" in settings.policy.changes():
        raise MedclipError(
            Reason.PREPROCESSING_MISMATCH,
            "the settings ask for other pixels than models are trained with.",
            hint="Score with the default PixelPolicy; medclip.open_study and medclip.view take any.",
        )
    pack = find_pack(_pack_name(model))
    verify_pack(pack)
    card = read_card(pack)
    own = read_pack_text(pack, card)
    tasks = asked_tasks(card, options, own)
    check_words(pack, card, tasks, own)
    score = None if sort_by is None else score_named(tasks, sort_by)
    holds_run = claim_folder(folder, "run of medclip", marks=(LEDGER,), inputs={"what is scored": root})
    key = load_key(settings, path=key_file)
    manifest = None if options.table is None else read_manifest(options.table)
    identity = run_identity(
        options,
        manifest=manifest,
        pack=f"{card.name} {card.version} {_pack_hash(pack)}",
        tasks=[asked.task.name for asked in tasks],
        version=__version__,
        key=key,
        settings=settings,
    )
    _refuse_empty(root, manifest, folder)
    notes = question_notes(card, tasks, pack)
    for note in notes:
        progress.note(note)
    with disk_errors(folder):
        make_folder(folder)
    with (
        Ledger(folder) as ledger,
        ReadingPool.of(settings, note=progress.note) as pool,
        ThreadPoolExecutor(1) as loader,
    ):
        # Loading the model takes seconds of imports; the reading processes look at files meanwhile. A folder that holds
        # a run may be finished already, and then no model is needed.
        loading = None if holds_run else loader.submit(_load, pack)
        claim(ledger, identity, folder)
        ledger.remember({"notes": list(notes)})
        remove_drafts(folder)
        hashed = partial(hashed_path, key=key)
        listing = Listing(root, ledger, (folder,), hashed)
        looker = Looker(listing, ledger, pool, options, manifest, key, settings)
        looker.begin(folder, add=add, retry=retry_failed)
        counter = Counter(root)
        chunks = looker.chunks()
        first = next(chunks, None)
        if first is not None:
            model_ = (loading or loader.submit(_load, pack)).result()
            answers = StudyScores(model_, Scorer(model_), tasks, modality_task(card))
            with encoder_threads() as (encoders, num_encoders):
                context = Context(
                    model=model_,
                    infer=None if answers.modality_task is None else answers.infer,
                    refuse=answers.refuse,
                    refuse_stranger=answers.refuse_stranger,
                    min_confidence=options.min_confidence,
                    pool=pool,
                    encoders=encoders,
                    num_encoders=num_encoders,
                    settings=settings,
                    key=key,
                    progress=progress,
                    thumbnails=options.thumbnails,
                )
                counts, num_done = ledger.counts(), ledger.num_done()
                progress.stage("Reading and scoring", max(counter.wait(3.0), num_done), num_done)
                parts = Parts(folder, hashed if options.hash_paths else None)
                run_chunks(
                    context,
                    ledger,
                    chain([first], chunks),
                    lambda work: tuple(answers.rows(work)),
                    partial(_committed, parts, counts, counter, progress),
                )
        counter.stop()
        finished = ledger.get("finished")
        already = finished is not None and finished == hashes_of(folder)
        if options.hash_paths and not ledger.get("hashed"):  # names came back for a call that was stopped
            already = False
        if not already:
            progress.stage("Writing tables and report", 1)
            if finished is not None and finished != hashes_of(folder):
                progress.note("The results were not as they had been written; they are written again.")
            ledger.remember({"report": None})
            ledger.number()
            if options.hash_paths and not ledger.get("hashed"):
                ledger.hash_names(hashed)
            write_results(ledger, folder, _run_description(identity, card, ledger))
        if finish is not None:
            finish(ledger, card, folder, score)
        ledger.remember({"finished": hashes_of(folder)})
        if not already:
            Parts(folder).remove()
            progress.step()
        return ScoreRun(folder, ledger.counts(), already_finished=already)


def _refuse_empty(root: Path, manifest: Manifest | None, folder: Path) -> None:
    """Refuse a folder without a file before anything is written."""
    if next(walk(root, exclude=(folder,)), None) is None and not (manifest is not None and manifest.rows):
        raise MedclipError(
            Reason.NOTHING_TO_DO, "there is no file in this folder.", where=root, hint="Name another folder."
        )


def _committed(
    parts: Parts,
    counts: dict[str, int],
    counter: Counter,
    progress: Progress,
    result: ChunkResult,
    grown: tuple[int, int],
) -> None:
    """Count what a chunk added, and show its rows before the run is finished."""
    counts["files"] += grown[0]
    counts["studies"] += grown[1]
    progress.overall(counts["files"], max(counter.total, counts["files"]), counts["studies"])
    parts.add(result)


def _load(pack: Path) -> Any:
    from medclip.models.packs.pack import load_model

    with torch_threads(1):
        return load_model(pack, verify=False)


def _pack_hash(pack: Path) -> str:
    """Hash of the pack's manifest, which holds the hash of every file; loading checks them."""
    return hashlib.sha256((pack / "manifest.json").read_bytes()).hexdigest()


def _pack_name(model: Any) -> str | Path:
    """Return the pack that is meant.

    A loaded model stands for its pack, which is loaded again: the run is bound to the pack's hashes.
    """
    named = getattr(model, "path", model)
    if not isinstance(named, (str, Path)):
        raise MedclipError(
            Reason.WRONG_USE,
            f"a model is named by a pack's name or folder, or is a loaded model, not {type(model).__name__}.",
        )
    return named


def _run_description(identity: dict[str, Any], card: Any, ledger: Ledger) -> dict[str, Any]:
    names = ("modality", "min_confidence", "group_by", "table", "tasks", "prompts")
    bare = identity["templates"] and any(Prompt.from_json(p).is_bare for p in identity["prompts"])
    scored = [Modality(name) for name in ledger.counts_by("modality")] if bare else []
    return {
        "medclip": identity["version"],
        "model": {"name": card.name, "version": str(card.version), "pack": identity["pack"].split(" ")[-1]},
        "options": {
            **{name: identity[name] for name in names},
            "templates": {str(modality): list(templates_of(modality)) for modality in sorted(scored)},
        },
        "notes": ledger.get("notes") or [],
        "input": {
            "num_files": ledger.num_listed(),
            "sha256": ledger.digest(),
            "num_added": ledger.get("added") or 0,
            "table_rows_elsewhere": ledger.get("elsewhere") or 0,
        },
    }
