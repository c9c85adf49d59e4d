"""Score a folder: plan, read, encode, commit chunk by chunk, and write the tables.

Called again on the same output folder, a run goes on after its last finished chunk and ends in the same bytes, wherever
it was stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from medclip.adaptation.pack.pack_head import read_pack_text
from medclip.errors import MedclipError, Reason
from medclip.files.discover import LEDGER
from medclip.files.output import claim_folder, disk_errors, remove_drafts
from medclip.files.pseudonyms import load_key
from medclip.files.readers.pool import ReadingPool
from medclip.models.parallel_encoding import encoder_threads, one_torch_thread
from medclip.progress import Progress, Silent
from medclip.runs.chunk import Context, run_chunks
from medclip.runs.identity import claim, run_identity
from medclip.runs.ledger import Ledger
from medclip.runs.options import DEFAULT_MODEL, ScoreOptions
from medclip.runs.plan import make_plan
from medclip.runs.results import FILES, RUN, SCORES, write_results
from medclip.runs.score_run import ScoreRun
from medclip.scoring.study_scores import StudyScores
from medclip.scoring.tasks import Scorer, asked_tasks, modality_task
from medclip.settings import Settings
from medclip.text.vocabulary.prompts import opposite

Finish = Callable[[Ledger, Any, Path], None]
"""Called with the complete ledger, the pack's card and the output folder, e.g. to write a report."""


def run_scoring(
    root: Path,
    folder: Path,
    *,
    model: Any = DEFAULT_MODEL,
    options: ScoreOptions | None = None,
    key_file: Path | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
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
    tasks = asked_tasks(card, options, read_pack_text(pack, card))
    holds_run = claim_folder(folder, "run of medclip", marks=(LEDGER,), inputs={"what is scored": root})
    key = load_key(settings, path=key_file)
    with (
        ReadingPool(settings.workers, settings.decode_timeout_s, settings.reader_memory_bytes) as pool,
        ThreadPoolExecutor(1) as loader,
    ):
        # Loading the model takes seconds of imports; the reading processes inspect meanwhile. A folder that holds a run
        # may be finished already, and then no model is needed.
        loading = None if holds_run else loader.submit(_load, pack)
        plan = make_plan(root, options, key=key, pool=pool, settings=settings, exclude=(folder,), progress=progress)
        pack_id = f"{card.name} {card.version} {_pack_hash(pack)}"
        identity = run_identity(
            plan,
            options,
            pack=pack_id,
            tasks=[asked.task.name for asked in tasks],
            version=__version__,
            key=key,
            settings=settings,
        )
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with Ledger(folder) as ledger:
            claim(ledger, identity, folder)
            remove_drafts(folder)
            if ledger.get("finished") and all((folder / name).exists() for name in (FILES, SCORES, RUN)):
                if finish is not None:
                    finish(ledger, card, folder)
                return ScoreRun(folder, ledger.counts(), already_finished=True)
            if len(ledger.finished_chunks()) < len(plan.chunks):
                loaded = (loading or loader.submit(_load, pack)).result()
                with encoder_threads() as (encoders, num_encoders):
                    answers = StudyScores(loaded, Scorer(loaded), tasks, modality_task(card))
                    context = Context(
                        plan=plan,
                        model=loaded,
                        infer=None if answers.modality_task is None else answers.infer,
                        refuse=answers.refuse,
                        min_confidence=options.min_confidence,
                        pool=pool,
                        encoders=encoders,
                        num_encoders=num_encoders,
                        settings=settings,
                        key=key,
                        progress=progress,
                    )
                    run_chunks(context, ledger, lambda work: tuple(answers.rows(work)))
            progress.stage("Writing tables and report", 1)
            write_results(ledger, folder, _run_description(identity, card, plan.table_rows_elsewhere))
            if finish is not None:
                finish(ledger, card, folder)
            ledger.remember({"finished": True})
            progress.step()
            return ScoreRun(folder, ledger.counts())


def _load(pack: Path) -> Any:
    from medclip.models.packs.pack import load_model

    with one_torch_thread():
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


def _run_description(identity: dict[str, Any], card: Any, table_rows_elsewhere: int) -> dict[str, Any]:
    options = {name: identity[name] for name in ("modality", "min_confidence", "group_by", "table", "tasks", "prompt")}
    against = opposite(identity["prompt"], identity["against"]) if identity["prompt"] is not None else None
    return {
        "medclip": identity["version"],
        "model": {"name": card.name, "version": str(card.version), "pack": identity["pack"].split(" ")[-1]},
        "options": {**options, "against": against},
        "input": {
            "num_files": identity["num_files"],
            "sha256": identity["files"],
            "table_rows_elsewhere": table_rows_elsewhere,
        },
    }
