"""Conduct a run over files: claim the folder, look, read, encode, commit chunk by chunk, write down.

What is made of the units is the verb's business: `score` answers questions about them, `embed` keeps their vectors.
Called again on the same output folder, a run goes on after its last finished chunk and ends in the same bytes, wherever
it was stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.discover import LEDGER, walk
from medclip.files.output import claim_folder, disk_errors, make_folder, remove_drafts
from medclip.files.pseudonyms import hashed_path, keyed_hash, load_key
from medclip.files.readers.pool import ReadingPool
from medclip.files.tables.manifest import Manifest, read_manifest
from medclip.models.backends.choice import BackendChoice
from medclip.models.devices import check_batch_size, check_device
from medclip.models.parallel_encoding import encoder_threads
from medclip.progress import Progress, Silent
from medclip.runs.chunk import Answers, Context
from medclip.runs.engines.engine import Engine, LookPool
from medclip.runs.engines.local import run_chunks
from medclip.runs.engines.worker_plan import WorkerPlan, load_worker_model
from medclip.runs.identity import claim, run_identity
from medclip.runs.ledger.chunk_result import ChunkResult
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.listing import Counter, Listing
from medclip.runs.look import Looker
from medclip.runs.operations.limited_chunks import LimitedChunks
from medclip.runs.operations.purge import refuse_purged
from medclip.runs.operations.watch import RunWatch, current_watch
from medclip.runs.operations.work_seconds import TimedThreads
from medclip.runs.options import DEFAULT_MODEL, ScoreOptions
from medclip.runs.parts import Parts
from medclip.runs.plan import Chunk
from medclip.runs.read_unit import inspect
from medclip.runs.remote_files import RemoteFiles
from medclip.runs.results import hashes_of
from medclip.runs.run_shard import RunShard, claim_shard, finish_shard
from medclip.sample import FileRef, Modality
from medclip.settings import Settings
from medclip.wording import count


@dataclass(frozen=True)
class Call:
    """What every verb over files is called with."""

    root: Path
    """A file or folder."""
    folder: Path
    """Output folder: new, empty, or holding this same run, which then goes on."""
    given: tuple[FileRef, ...] | None = None
    """The files, by `FileRef.place`, where they were named one by one; `root` is then of no meaning."""
    model: Any = DEFAULT_MODEL
    """Name or folder of a model pack, or a loaded model of one."""
    options: ScoreOptions = field(default_factory=ScoreOptions)
    key_file: Path | None = None
    """Identity key to hash identifiers with, where it is not the one in the settings' home."""
    settings: Settings = field(default_factory=Settings)
    """Limits and number of reading processes."""
    progress: Progress = field(default_factory=Silent)
    add: bool = False
    """Take in files that came since an earlier call, and those that changed; rows of the others stay."""
    retry_failed: str | None = None
    """Try the files that failed once more: those of a reason, or all for ""."""
    device: str = "cpu"
    batch_size: int | None = None
    """Images in one forward pass; None for the model's own number."""
    exclude: tuple[Path, ...] = ()
    """Folders below `root` that are left out, beside the output folder."""
    backend: BackendChoice | None = None
    """What computes the images; None for torch in float32."""
    asked: Mapping[str, Any] | None = None
    """The arguments of the verb, as the ledger keeps them for `medclip.retry`; None where it cannot."""
    remote: RemoteFiles | None = None
    """The files, where they lie elsewhere; `root` is then the folder they are brought to."""
    watch: RunWatch = field(default_factory=current_watch)
    """Told how the run goes on, beside `progress`: its log, its metrics, where its time goes."""
    shard: RunShard | None = None
    """Do this shard of the run alone, and write no tables; None for all of it."""
    engine: Engine | None = None
    """Who computes the chunks; None for this process. It is no part of what the run is."""
    limit: int | None = None
    """Stop once so many files have their row; another call without it goes on. None for all files."""

    def __post_init__(self) -> None:
        """Refuse a limit below one.

        Raises:
            MedclipError: WRONG_USE.
        """
        if self.limit is not None and self.limit < 1:
            raise MedclipError(Reason.WRONG_USE, f"a run is limited to 1 file or more, not to {self.limit}.")


@dataclass(frozen=True)
class RunPack:
    """The model pack of a run, checked and not loaded."""

    path: Path
    card: Any
    digest: str

    @property
    def identity(self) -> str:
        """Name, version and hash."""
        return f"{self.card.name} {self.card.version} {self.digest}"


Work = Callable[[Context, Ledger, Iterator[Chunk], Callable[[ChunkResult, tuple[int, int]], None]], None]
"""Context, ledger, chunks, and what is called after each commit with what was committed and what it returned."""


@dataclass(frozen=True)
class Verb:
    """What a verb makes of a run."""

    stage: str
    """What progress calls the work."""
    identity: Mapping[str, Any]
    """What makes two calls the same run, besides files, options and pack: the question."""
    answers: Callable[[Any], Answers] | None
    """From the loaded model to what is made of units; None where `work` makes it."""
    write: Callable[[Ledger, dict[str, Any]], None]
    """Writes the results of a complete ledger whose files are numbered; it is given what run.json says."""
    begin: Callable[[], None] | None = None
    """Called once the folder is this run's, before anything is read."""
    compute: Callable[[], None] | None = None
    """Called before the first chunk is computed: results that are there are no longer those of the whole run."""
    finish: Callable[[Ledger], None] | None = None
    """Called before the run counts as finished, also where nothing is computed again, e.g. to write a report."""
    shows_parts: bool = True
    """Early rows are written as small tables."""
    keeps_looks: bool = False
    """It is kept what images are known again by."""
    notes: tuple[str, ...] = ()
    """What should be known of the question; shown at once, and kept for those who read the results."""
    only: Modality | None = None
    """The one modality that the pack knows, if so: single images are taken for it that nobody names."""
    work: Work | None = None
    """Works through the chunks in the place of `run_chunks`."""
    lacks: Callable[[Ledger], Iterable[int]] | None = None
    """Returns the files whose results are gone, by their ids: they are read again."""
    beside: tuple[str, ...] = ()
    """Names by which an output folder is known for one where this run may be, though it holds none yet."""


def pack_of_run(model: Any, settings: Settings, device: str = "cpu", batch_size: int | None = None) -> RunPack:
    """Check all that can be checked of a run's model without loading it.

    Args:
        model: Name or folder of a pack, or a loaded model. A loaded model stands for its pack, which is loaded again:
            the run is bound to the pack's hashes.
        settings: Those of the run; other pixels than models are trained with are refused.
        device: What it is to compute on.
        batch_size: Images in one forward pass.

    Raises:
        MedclipError: WRONG_USE, PREPROCESSING_MISMATCH, and what `verify_pack` raises.
    """
    from medclip.models.card import read_card
    from medclip.models.packs.manifest import pack_digest
    from medclip.models.packs.pack import find_pack, verify_pack

    if "pixels" in settings.policy.changes():
        raise MedclipError(
            Reason.PREPROCESSING_MISMATCH,
            "the settings ask for other pixels than models are trained with.",
            hint="Score with the default PixelPolicy; medclip.open_study and medclip.view take any.",
        )
    check_batch_size(batch_size)
    named = getattr(model, "path", model)
    if not isinstance(named, (str, Path)):
        raise MedclipError(
            Reason.WRONG_USE,
            f"a model is named by a pack's name or folder, or is a loaded model, not {type(model).__name__}.",
        )
    pack = find_pack(named)
    check_device(device)
    verify_pack(pack)
    return RunPack(pack, read_card(pack), pack_digest(pack))


def pack_of_call(call: Call) -> RunPack:
    """Check the model of a call. The device is asked for here unless an engine computes elsewhere, which asks its own.

    Raises:
        MedclipError: As `pack_of_run`.
    """
    device = call.device if call.engine is None else "cpu"
    return pack_of_run(call.model, call.settings, device, call.batch_size)


def conduct(call: Call, pack: RunPack | None, verb: Verb) -> tuple[dict[str, int], bool]:
    """Carry out a run.

    Args:
        call: What it is over, and how.
        pack: Its model, from `pack_of_run`; None for a run that computes nothing with one.
        verb: What is made of it.

    Returns:
        Its counts, and whether the folder held this very run, complete: then nothing was computed or rewritten.

    Raises:
        MedclipError: MISSING_FILE, NOTHING_TO_DO, OUTPUT_IN_USE, WRONG_USE, TABLE_INVALID, DISK_FULL and what loading
            the model raises. A file that cannot be read raises nothing; it has its row.
    """
    from medclip.version import __version__

    options, settings, progress, folder = call.options, call.settings, call.progress, call.folder
    watch = call.watch
    holds_run = claim_folder(folder, "run of medclip", marks=(LEDGER, *verb.beside), inputs=inputs_of_call(call))
    key = load_key(settings, path=call.key_file)
    table = options.table
    manifest = table if table is None or isinstance(table, Manifest) else read_manifest(table)
    identity = {
        **verb.identity,
        **run_identity(
            options, manifest=manifest, pack="" if pack is None else pack.identity, version=__version__, key=key,
            settings=settings, device=call.device, batch_size=call.batch_size,
            backend=None if call.backend is None else call.backend.identity(),
        ),
    }  # fmt: skip
    if call.remote is None:
        _refuse_own_files(call)
        refuse_empty(call, manifest)
    else:
        identity["source"] = keyed_hash("run", call.remote.identity, key)
        call.remote.list_all(key)
    for note in verb.notes:
        progress.note(note)
    with disk_errors(folder):
        make_folder(folder)
    with (
        Ledger(folder) as ledger,
        _pool(call) as pool,
        ThreadPoolExecutor(1) as loader,
        call.remote or nullcontext(),
    ):
        if ledger.drive is not None:
            progress.note(
                f"The output folder lies on a network drive ({ledger.drive}): its ledger has a rollback journal there, "
                "and each step waits for the drive. A folder on a disk of this machine is faster; copy it at the end."
            )
        watch.work.begin()
        watch.counted = partial(_counted, pool, ledger)
        # Loading the model takes seconds of imports; the reading processes look at files meanwhile. A folder that holds
        # a run may be finished already, and then no model is needed.
        load = (lambda: None) if pack is None else partial(load_run_model, pack.path, call)
        loading = None if holds_run or call.engine is not None else loader.submit(load)
        claim_shard(ledger, call.shard, folder)
        claim(ledger, identity, folder)
        refuse_purged(ledger, folder)
        if verb.begin is not None:
            verb.begin()
        asked = call.asked if call.shard is not None or not options.hash_paths else None  # it has paths
        ledger.remember({"notes": list(verb.notes), "asked": asked})
        remove_drafts(folder)
        hashed = partial(hashed_path, key=key)
        listing = Listing(call.root, ledger, (folder, *call.exclude), hashed, call.given, call.remote, call.shard)
        looker = Looker(listing, ledger, pool, options, manifest, key, settings, verb.only)
        lacks = verb.lacks if ledger.get("finished") is not None else None
        is_lacking = lacks is not None and any(True for _ in lacks(ledger))
        looker.begin(folder, add=call.add, retry=call.retry_failed, again=is_lacking or bool(ledger.get(_LIMITED)))
        if is_lacking and lacks is not None:  # asked once more: what came or changed is open already
            ledger.open_again(dict.fromkeys(lacks(ledger)))
        counter = Counter(call.root, _num_files(call), 1 if call.shard is None else call.shard.num_shards)
        ledger.expects = counter.known
        chunks = LimitedChunks(looker.chunks(), call.limit, ledger.num_done())
        first = next(chunks, None)
        if first is not None:
            if verb.compute is not None:
                verb.compute()
            model = None if call.engine is not None else (loading or loader.submit(load)).result()
            counts, num_done = ledger.counts(), ledger.num_done()
            progress.stage(verb.stage, max(counter.wait(3.0), num_done), num_done)
            watch.started(_facts(call, pack), counts, counter.total)
            parts = None
            if verb.shows_parts and call.shard is None:
                parts = Parts(folder, hashed if options.hash_paths else None)
            committed = partial(_committed, parts, counts, counter, call)
            todo, plan = chain([first], chunks), worker_plan(call, pack, verb, key)
            _compute(call, verb, plan, model, (pool, loader), ledger, todo, committed)
        counter.stop()
        if call.shard is not None:
            already = finish_shard(ledger, is_cut=chunks.is_cut)
            watch.wrote(ledger.counts(), already=already)
            return ledger.counts(), already
        with watch.work.at("write"):
            committed_s = ledger.write_seconds
            note_limit(ledger, verb.notes, call, is_cut=chunks.is_cut)
            already = write_down(
                ledger, folder, verb, partial(describe, identity, pack, ledger), hashed, options.hash_paths, progress
            )
            watch.work.add("write", committed_s - ledger.write_seconds)  # the ledger counts its own
        counts = ledger.counts()
        watch.wrote(counts, already=already)
        if first is not None and call.engine is None:  # what workers elsewhere do is not measured here
            progress.note(watch.report().sentence())
        return counts, already


def _compute(
    call: Call,
    verb: Verb,
    plan: WorkerPlan,
    model: Any,
    readers: tuple[LookPool, ThreadPoolExecutor],
    ledger: Ledger,
    chunks: Iterator[Chunk],
    committed: Callable[[ChunkResult, tuple[int, int]], None],
) -> None:
    """Have chunks computed by the engine of a call, or here."""
    if call.engine is not None:
        call.engine.run(plan, ledger, chunks, committed, call.progress)
        return
    pool, loader = readers
    threads = nullcontext((loader, 1)) if plan.pack is None else encoder_threads()  # a model's need torch
    with threads as (encoders, num_encoders):
        work, num_readers = call.watch.work, call.settings.workers
        work.places |= {"read": num_readers, "decode": num_readers, "model": num_encoders}
        timed = TimedThreads(encoders, work, "model")
        context = replace(
            plan.context(model, pool, timed, num_encoders, call.progress),
            is_full=bool if call.remote is None else partial(getattr, call.remote, "is_full"),
            halved=_halved(call.progress, ledger),
        )
        (verb.work or run_chunks)(context, ledger, chunks, committed)


def write_down(
    ledger: Ledger,
    folder: Path,
    verb: Verb,
    run: Callable[[], dict[str, Any]],
    hashed: Callable[[str], str],
    hash_paths: bool,
    progress: Progress,
) -> bool:
    """Write the results of a complete ledger, unless they are there as they were written.

    Args:
        ledger: All chunks are committed.
        folder: The output folder.
        verb: Writes them.
        run: Returns what run.json says.
        hashed: Turns a path into its hash.
        hash_paths: Whether hashes stand in the place of paths.
        progress: Told of it.

    Returns:
        Whether they were.
    """
    finished = ledger.get("finished")
    already = finished is not None and finished == hashes_of(folder)
    if hash_paths and not ledger.get("hashed"):  # names came back for a call that was stopped
        already = False
    if not already:
        progress.stage("Writing the results", 1)
        if finished is not None and finished != hashes_of(folder):
            progress.note("The results were not as they had been written; they are written again.")
        ledger.remember({"report": None})
        ledger.number()
        if hash_paths and not ledger.get("hashed"):
            ledger.hash_names(hashed)
        verb.write(ledger, run())
    if verb.finish is not None:
        verb.finish(ledger)
    if not ledger.get(_LIMITED):
        ledger.remember({"finished": hashes_of(folder)})
    if not already:
        Parts(folder).remove()
        progress.step()
    return already


def describe(identity: Mapping[str, Any], pack: RunPack | None, ledger: Ledger) -> dict[str, Any]:
    """Return what run.json says of every run besides its counts: no path, no time."""
    names = ("modality", "min_confidence", "group_by", "table")
    last = {n: identity[n] for n in ("device", "batch_size", "backend", "weeks") if identity.get(n) is not None}
    return {
        "medclip": identity["version"],
        "model": None
        if pack is None
        else {"name": pack.card.name, "version": str(pack.card.version), "pack": pack.digest},
        "options": {name: identity[name] for name in names} | last,
        "input": {
            "num_files": ledger.num_listed(),
            "sha256": ledger.digest(),
            "num_added": ledger.get("added") or 0,
            "table_rows_elsewhere": ledger.get("elsewhere") or 0,
        },
    }


def note_limit(ledger: Ledger, notes: Sequence[str], call: Call, *, is_cut: bool) -> None:
    """Remember that a run was limited, and say so to whoever reads its results; or that it is not any more.

    Args:
        ledger: Of the run.
        notes: What is to be known of it besides.
        call: Its progress is told, too.
        is_cut: Whether files were left out.
    """
    if is_cut:
        files = count(ledger.counts()["files"], "file")
        note = f"Limited: {files} have their row, and others were left out. The same call without a limit goes on."
        call.progress.note(note)
        ledger.remember({"notes": [*notes, note], "finished": None, _LIMITED: True})
    elif ledger.get(_LIMITED):
        ledger.remember({"finished": None, _LIMITED: False})


_LIMITED = "limited"


def worker_plan(call: Call, pack: RunPack | None, verb: Verb, key: bytes) -> WorkerPlan:
    """Return what the workers of an engine need."""
    from medclip.version import __version__

    return WorkerPlan(
        pack=None if pack is None else pack.path,
        digest="" if pack is None else pack.digest,
        version=__version__,
        device=call.device,
        batch_size=call.batch_size,
        backend=call.backend,
        settings=call.settings,
        key=key,
        answers=verb.answers,
        options=replace(call.options, table=None),
        looks=verb.keeps_looks,
    )


def inputs_of_call(call: Call) -> dict[str, Path]:
    """Return what a call reads and may not be replaced, by what it is called."""
    return {"what is scored": call.root} if call.given is None and call.remote is None else {}


def _num_files(call: Call) -> int | None:
    """Return how many files there are, where nothing need be counted."""
    if call.remote is not None:
        return call.remote.num_files
    return None if call.given is None else len(call.given)


def _refuse_own_files(call: Call) -> None:
    """Refuse a log or metrics in the folder that is read: they would be files of the run, and change while it goes."""
    if call.given is not None:
        return
    root, own = call.root.resolve(), [folder.resolve() for folder in (call.folder, *call.exclude)]
    for option, file in call.watch.files.items():
        place = file.resolve()
        if place.is_relative_to(root) and not any(place.is_relative_to(folder) for folder in own):
            raise MedclipError(
                Reason.WRONG_USE,
                f"{option} lies in the folder that is read, and would be one of its files.",
                where=file,
                hint="Name a place outside it.",
            )


def refuse_empty(call: Call, manifest: Manifest | None) -> None:
    """Refuse a folder without a file before anything is written."""
    if call.given is not None:
        if not call.given:
            raise MedclipError(Reason.NOTHING_TO_DO, "no image was given.", hint="Give paths or arrays.")
        return
    if next(walk(call.root, exclude=(call.folder, *call.exclude)), None) is None and not (
        manifest is not None and manifest.rows
    ):
        raise MedclipError(
            Reason.NOTHING_TO_DO, "there is no file in this folder.", where=call.root, hint="Name another folder."
        )


def _committed(
    parts: Parts | None,
    counts: dict[str, int],
    counter: Counter,
    call: Call,
    result: ChunkResult,
    grown: tuple[int, int],
) -> None:
    """Count what a chunk added, and show its rows before the run is finished."""
    counts["files"] += grown[0]
    counts["studies"] += grown[1]
    total = max(counter.total, counts["files"])
    call.progress.overall(counts["files"], total, counts["studies"])
    call.watch.committed(result.files, counts, total)
    if parts is not None:
        parts.add(result)
    if call.remote is not None:
        call.remote.release(row.path for row in result.files)


def _pool(call: Call) -> LookPool:
    """Return what looks at files: on the nodes of an engine, else reading processes here, which read them, too."""
    if call.engine is not None:
        return call.engine.look_pool(call.settings)
    return ReadingPool.of(call.settings, note=call.progress.note)


def _counted(pool: LookPool, ledger: Ledger) -> dict[str, float]:
    """Return the seconds of work that the pool and the ledger count."""
    seconds = pool.seconds()
    looked = seconds.pop(inspect.__name__, 0.0)
    return {"read": looked, "decode": sum(seconds.values()), "write": ledger.write_seconds}


def _facts(call: Call, pack: RunPack | None) -> dict[str, Any]:
    """Return what computes a run, for its log: no path."""
    return {
        "model": None if pack is None else {"name": pack.card.name, "version": str(pack.card.version)},
        "device": call.device,
        "backend": None if call.backend is None else call.backend.identity(),
        "workers": call.settings.workers,
    }


def _halved(progress: Progress, ledger: Ledger) -> Callable[[int], None]:
    """Return what counts batches that the memory does not hold, and tells of the first."""
    notes = iter(
        ["The memory does not hold a whole batch of images: halves are computed; last bits may differ by that."]
    )

    def halved(_: int) -> None:
        ledger.num_halved += 1
        for note in notes:
            progress.note(note)

    return halved


def load_run_model(pack: Path, call: Call) -> Any:
    """Load the model of a run, whose pack was checked, on its device and with its batch size and back-end."""
    return load_worker_model(pack, call.device, call.batch_size, call.backend)
