"""Score a folder of embeddings: a new question to old studies, and no image is read.

What comes out equals, byte for byte, what scoring the files with the same options would have written, where vectors are
stored as float32. Into a folder, files and vectors are worked through in blocks; in memory, the tables are held.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.adaptation.pack.pack_head import read_pack_texts
from medclip.embeddings.embeddings_reader import open_for
from medclip.embeddings.open_embeddings import Embeddings
from medclip.errors import MedclipError, Reason
from medclip.files.discover import LEDGER
from medclip.files.output import claim_folder, disk_errors, make_folder, remove_drafts
from medclip.files.pseudonyms import hashed_path, load_key
from medclip.files.tables.manifest import read_manifest
from medclip.files.tables.write import batches, schema_of, table_of
from medclip.models.backends.choice import backend_notes
from medclip.models.packs.manifest import pack_digest
from medclip.runs.call import Call, RunPack, pack_of_run
from medclip.runs.conduct import describe, write_down
from medclip.runs.engines.engine import load_run_model
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.outputs.score_run import ScoreRun
from medclip.runs.planning.identity import claim, titles_of
from medclip.runs.planning.options import ScoreOptions
from medclip.runs.rows import ExamRow, FileRow, ScoreRow, Thumbnail
from medclip.sample import Kind
from medclip.scoring.cautions import (
    kind_notes,
    place_notes,
    question_notes,
    unanswered_notes,
    unlearned_answers,
    word_notes,
)
from medclip.scoring.scoring_run import Finish, fusion_asked, score_verb, study_scores
from medclip.scoring.stored_units import StoredUnits
from medclip.scoring.tasks import AskedTask, asked_tasks, check_words

if TYPE_CHECKING:
    import pyarrow as pa

COMMAND = "score of embeddings"


def score_embeddings(
    embeddings: Embeddings, call: Call, *, sort_by: str | None = None, finish: Finish | None = None
) -> ScoreRun:
    """Score a folder of embeddings into a folder.

    Args:
        embeddings: Embeddings that are scored.
        call: Model and options of the run; `root` is not looked at. What was decided when the files were embedded may
            be left at its default, or be what it was then.
        sort_by: Task, or task and class, as `run_scoring` takes it.
        finish: Function called before the run counts as finished, as `run_scoring` takes it.

    Raises:
        MedclipError: WRONG_USE for another pack, another key, and for options that were decided before; OUTPUT_IN_USE,
            DISK_FULL and what loading the model raises.
    """
    from medclip.version import __version__

    pack = pack_of_run(call.model, call.settings, call.device, call.batch_size)
    key = _checked_key(embeddings, call, pack)
    tasks = _tasks(pack, call.options)
    run_identity = dict(embeddings.run["identity"])
    verb = score_verb(pack, tasks, call.options, call.folder, None, sort_by, finish, call.progress)
    verb = replace(verb, notes=(*verb.notes, *backend_notes(run_identity.get("backend"))))
    hash_paths = embeddings.hashes_paths or call.options.hash_paths
    claim_folder(call.folder, "run of medclip", marks=(LEDGER,), inputs={"what is scored": embeddings.folder})
    identity = {
        **{name: value for name, value in run_identity.items() if name != "dtype"},
        "version": __version__,
        "pack": pack.identity,
        "hash_paths": hash_paths,
        "command": COMMAND,
        "embeddings": embeddings.digest,
        **verb.identity,
    }
    for note in verb.notes:
        call.progress.note(note)
    with disk_errors(call.folder):
        make_folder(call.folder)
    with Ledger(call.folder) as ledger:
        claim(ledger, identity, call.folder)
        if call.publication is not None:
            call.publication.begin(ledger)
        ledger.remember(
            {"notes": list(verb.notes), "asked": call.asked_without_files, "recipe": _recipe(embeddings, call)}
        )
        remove_drafts(call.folder)
        if ledger.get("finished") is None:
            model = load_run_model(pack.path, call)
            scores = study_scores(model, tasks, verb.identity.get("exam"), verb.identity.get("pool"))
            units = StoredUnits(embeddings, scores, key, names_files=False)
            call.progress.stage("Scoring stored vectors", units.num_studies)
            files = (FileRow(**values) for table in units.files() for values in table.to_pylist())
            small = (Thumbnail(row, image, False) for row, image in embeddings.thumbnails())
            burned = (Thumbnail(row, b"", True) for row in embeddings.burned_in_rows())
            kept = (image for image in chain(small, burned) if call.options.thumbnails and units.is_scored(image.row))
            remembered = {
                "hashed": embeddings.hashes_paths,
                "added": embeddings.run["input"]["num_added"],
                "elsewhere": embeddings.run["input"]["table_rows_elsewhere"],
            }
            ledger.fill(files, units.scores(call.progress.step), kept, remembered)
        hashed = partial(hashed_path, key=key)
        run = partial(describe, identity, pack, ledger)
        already = write_down(ledger, call.folder, verb, run, hashed, hash_paths, call.progress)
        if call.publication is not None:
            call.publication.finish()
        call.watch.wrote(ledger.counts(), already=already)
        return ScoreRun(call.folder, ledger.counts(), already_finished=already)


def answer_embeddings(embeddings: Embeddings, call: Call) -> ScoreRun:
    """Score embeddings in memory: nothing is written, and there is no report.

    A loaded model is taken as it is, so that a question costs milliseconds.
    """
    import pyarrow as pa

    model, is_loaded = call.model, hasattr(call.model, "encode_image")
    if is_loaded:
        pack = RunPack(Path(model.path), model.card, pack_digest(Path(model.path)))
    else:
        pack = pack_of_run(model, call.settings, call.device, call.batch_size)
    key = _checked_key(embeddings, call, pack)
    tasks = _tasks(pack, call.options)
    if not is_loaded:
        model = load_run_model(pack.path, call)
    hashes_paths = call.options.hash_paths and not embeddings.hashes_paths
    name_of = partial(hashed_path, key=key) if hashes_paths else None
    exam = fusion_asked(pack, call.options)
    units = StoredUnits(embeddings, study_scores(model, tasks, exam, call.options.pool), key, name_of=name_of)
    files = pa.concat_tables([schema_of(FileRow).empty_table(), *units.files()])
    kinds = {"scores": ScoreRow, **({"exam_scores": ExamRow} if exam else {})}
    parts: dict[str, list[pa.Table]] = {name: [schema_of(kind).empty_table()] for name, kind in kinds.items()}
    for some in batches(units.scores(call.progress.step)):
        for name, kind in kinds.items():
            parts[name].append(table_of((row for row in some if isinstance(row, kind)), kind, parts[name][0].schema))
    counts = {"files": files.num_rows, **dict.fromkeys(("scored", "skipped", "failed"), 0)}
    counts |= Counter(files.column("status").to_pylist())
    counts["studies"] = units.num_studies
    tables = {"files": files, **{name: pa.concat_tables(tables) for name, tables in parts.items()}}
    modalities = tables["scores"].column("modality").unique().to_pylist()
    notes = (*question_notes(pack.card, tasks, pack.path), *word_notes(pack.card, tasks, modalities))
    kinds = kinds_scored(files)
    notes = (
        *notes,
        *place_notes(pack.card, tasks, modalities),
        *kind_notes(pack.card, tasks, kinds),
        *unanswered_notes(tasks, modalities),
        *backend_notes(embeddings.run["identity"].get("backend")),
    )
    unlearned = unlearned_answers(pack.card, tasks, modalities, pack.path, kinds)
    return ScoreRun(embeddings.folder, counts, _tables=tables, _notes=notes, _unlearned=unlearned)


def kinds_scored(files: pa.Table) -> dict[str, set[Kind]]:
    """Return by modality the kinds of the units of a table of files that were scored."""
    columns = files.select(["status", "modality", "kind"]).group_by(["status", "modality", "kind"]).aggregate([])
    kinds: dict[str, set[Kind]] = {}
    for row in columns.to_pylist():
        if row["status"] == "scored" and row["kind"]:
            kinds.setdefault(row["modality"], set()).add(Kind(row["kind"]))
    return kinds


def _recipe(embeddings: Embeddings, call: Call) -> dict[str, Any] | None:
    """Return what repeats the run from the files: what was decided when they were embedded, and the question."""
    of_files = {name: value for name, value in (embeddings.run.get("recipe") or {}).items() if name != "dtype"}
    return None if call.recipe is None else {**of_files, **call.recipe}


def _tasks(pack: RunPack, options: ScoreOptions) -> tuple[AskedTask, ...]:
    head_tasks = read_pack_texts(pack.path, pack.card)
    tasks = asked_tasks(pack.card, options, head_tasks)
    check_words(pack.path, pack.card, tasks, head_tasks)
    return tasks


def _checked_key(embeddings: Embeddings, call: Call, pack: RunPack) -> bytes:
    """Return the identity key, after all that cannot be asked of these embeddings is refused."""
    open_for(embeddings, pack.path, call.settings, call.key_file)
    identity = embeddings.run["identity"]
    key = load_key(call.settings, path=call.key_file)
    embeddings.check_key(key)
    differing = [
        name for name, (wanted, default) in _asked(call).items() if wanted not in (default, identity.get(name))
    ]
    if differing:
        title = titles_of(differing)[0]
        raise MedclipError(
            Reason.WRONG_USE,
            f"{title} was decided when the files were embedded, and is another one here.",
            where=embeddings.folder,
            hint="Leave it out, or embed the files anew with it.",
        )
    if call.add or call.retry_failed is not None:
        raise MedclipError(
            Reason.WRONG_USE,
            "no file is looked at where embeddings are scored.",
            where=embeddings.folder,
            hint="Add files to the embeddings, or try them again, with medclip embed.",
        )
    return key


def _asked(call: Call) -> Mapping[str, tuple[Any, Any]]:
    """Return what was decided when the files were embedded: as it is asked for now, and its default."""
    options, default = call.options, ScoreOptions()
    table = "" if options.table is None else read_manifest(options.table).digest
    return {
        "modality": (None if options.modality is None else str(options.modality), None),
        "min_confidence": (options.min_confidence, default.min_confidence),
        "group_by": (options.group_by, default.group_by),
        "table": (table, ""),
        "policy": (dict(call.settings.policy.changes()), {}),
        "weeks": (options.weeks or None, None),
        "batch_size": (call.batch_size, None),
    }
