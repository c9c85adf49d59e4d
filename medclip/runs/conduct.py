"""Conduct a run over files: claim the folder, look, read, encode, commit chunk by chunk, write down.

What is made of the units is the verb's business: `score` answers questions about them, `embed` keeps their vectors.
Called again on the same output folder, a run goes on after its last finished chunk and ends in the same bytes, wherever
it was stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from medclip.files.discover import LEDGER, RECEIVED
from medclip.files.output import claim_folder, disk_errors, make_folder, remove_drafts
from medclip.files.pseudonyms import hashed_path, keyed_hash, load_key
from medclip.files.readers.pool import ReadingPool
from medclip.files.tables.manifest import Manifest
from medclip.models.devices import default_batch, kind_of
from medclip.models.encoding.parallel_encoding import encoder_threads
from medclip.progress import Progress
from medclip.runs.call import (
    Call,
    RunPack,
    inputs_of_call,
    manifest_of_call,
    num_files_of_call,
    refuse_empty,
    refuse_own_files,
)
from medclip.runs.engines.engine import Commit, LookPool, WorkerPlan, load_run_model, run_chunks
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.operations.purge import refuse_purged
from medclip.runs.operations.work_seconds import TimedThreads
from medclip.runs.outputs.results import Parts, hashes_of
from medclip.runs.planning.identity import claim, claim_shard, finish_shard
from medclip.runs.planning.listing import Counter, Listing
from medclip.runs.planning.look import Looker
from medclip.runs.planning.options import RETRY
from medclip.runs.planning.plan import Chunk
from medclip.runs.rows import ChunkResult
from medclip.runs.units.read_unit import inspect, ready_to_read
from medclip.runs.verb import Verb
from medclip.wording import count


def conduct(call: Call, pack: RunPack | None, verb: Verb) -> tuple[dict[str, int], bool]:
    """Carry out a run.

    Args:
        call: Files and options of the run.
        pack: Model of the run, from `pack_of_run`; None for a run that computes nothing with one.
        verb: Verb that the run carries out.

    Returns:
        Its counts, and whether the folder held this very run, complete: then nothing was computed or rewritten.

    Raises:
        MedclipError: MISSING_FILE, NOTHING_TO_DO, OUTPUT_IN_USE, WRONG_USE, TABLE_INVALID, DISK_FULL and what loading
            the model raises. A file that cannot be read raises nothing; it has its row.
    """
    marks = (LEDGER, RECEIVED, *verb.beside)
    holds_run = claim_folder(call.folder, "run of medclip", marks=marks, inputs=inputs_of_call(call))
    key = load_key(call.settings, path=call.key_file)
    manifest = manifest_of_call(call)
    identity = _identity(call, pack, verb, manifest, key)
    if call.remote is None:
        refuse_own_files(call)
        refuse_empty(call, manifest)
    else:
        call.remote.list_all(key)
    for note in verb.notes:
        call.progress.note(note)
    with disk_errors(call.folder):
        make_folder(call.folder)
    with (
        Ledger(call.folder) as ledger,
        _pool(call) as pool,
        ThreadPoolExecutor(1) as loader,
        call.remote or nullcontext(),
        closing(verb.sink),
        call.publication or nullcontext(),
    ):
        run = _Run(call, pack, verb, key, ledger, pool, loader)
        _begin_watch(run)
        # Loading the model takes seconds of imports; the reading processes look at files meanwhile. A folder that holds
        # a run may be finished already, and then no model is needed.
        loading = None if holds_run or call.engine is not None else loader.submit(run.load)
        _take_folder(run, identity)
        looker = _look(run, manifest)
        num_shards = 1 if call.shard is None else call.shard.num_shards
        counter = Counter(call.root, looker.listing, num_files_of_call(call), num_shards)
        ledger.expects = counter.counted
        chunks = LimitedChunks(looker.chunks(), call.limit, ledger.num_done())
        first = next(chunks, None)
        if first is not None:
            if call.engine is None:  # the first decoder would else be imported once the model is there
                pool.submit(ready_to_read, {unit.modality for unit in first.plan.studies if unit.modality})
            _compute(run, loading, counter, chain([first], chunks))
        counter.stop()
        if call.shard is not None:
            already = finish_shard(ledger, is_cut=chunks.is_cut)
            call.watch.wrote(ledger.counts(), already=already)
            return ledger.counts(), already
        already = _write(run, identity, is_cut=chunks.is_cut)
        call.watch.wrote(ledger.counts(), already=already)
        if first is not None and call.engine is None:  # what workers elsewhere do is not measured here
            call.progress.note(call.watch.report().sentence())
        return ledger.counts(), already


@dataclass(frozen=True)
class _Run:
    """A run in its folder: what it is asked, and what it reads and writes with."""

    call: Call
    pack: RunPack | None
    verb: Verb
    key: bytes
    ledger: Ledger
    pool: LookPool
    loader: ThreadPoolExecutor

    def load(self) -> Any:
        """Load the model; None where the run has none."""
        return None if self.pack is None else load_run_model(self.pack.path, self.call)

    def hashed(self, path: str) -> str:
        """Return the keyed hash of a path."""
        return hashed_path(path, key=self.key)


def _identity(call: Call, pack: RunPack | None, verb: Verb, manifest: Manifest | None, key: bytes) -> dict[str, Any]:
    """Return what makes a run another run, besides its files, which the ledger knows: hashes and options, no path.

    Device, batch size and back-end decide the last bits of a vector; those that go without saying are None.
    """
    from medclip.version import __version__

    options, settings = call.options, call.settings
    identity = {
        **verb.identity,
        "pack": "" if pack is None else pack.identity,
        "table": "" if manifest is None else manifest.digest,
        "modality": None if options.modality is None else str(options.modality),
        "min_confidence": options.min_confidence,
        "group_by": options.group_by,
        "key": keyed_hash("run", "identity", key),  # study keys depend on it
        "limits": [settings.max_pixels, settings.max_file_bytes, settings.max_volume_bytes],
        "hash_paths": options.hash_paths,
        "weeks": options.weeks or None,
        "policy": dict(settings.policy.changes()),
        "version": __version__,
        "device": None if call.device == "cpu" else kind_of(call.device),
        "batch_size": None if call.batch_size == default_batch(call.device) else call.batch_size,
        "backend": None if call.backend is None else call.backend.identity(),
    }
    return identity if call.remote is None else identity | {"source": keyed_hash("run", call.remote.identity, key)}


def _begin_watch(run: _Run) -> None:
    """Count seconds from here on, and say where the ledger is slow."""
    if run.ledger.drive is not None:
        run.call.progress.note(
            f"The output folder lies on a network drive ({run.ledger.drive}): its ledger has a rollback journal there, "
            "and each step waits for the drive. A folder on a disk of this machine is faster; copy it at the end."
        )
    run.call.watch.work.begin()
    run.call.watch.counted = partial(_counted, run.pool, run.ledger)


def _take_folder(run: _Run, identity: dict[str, Any]) -> None:
    """Make the folder that of this run, or refuse one that is of another; begin what else the run writes to."""
    call, verb, ledger = run.call, run.verb, run.ledger
    claim_shard(ledger, call.shard, call.folder)
    claim(ledger, identity, call.folder)
    refuse_purged(ledger, call.folder)
    if call.publication is not None:
        call.publication.begin(ledger)
    if verb.begin is not None:
        verb.begin()
    arguments = call.asked if call.shard is not None or not call.options.hash_paths else call.asked_without_files
    ledger.remember({"notes": list(verb.notes), "asked": arguments, "recipe": call.recipe})
    remove_drafts(call.folder)


def _look(run: _Run, manifest: Manifest | None) -> Looker:
    """Return what looks at the files of a run, once those are open again that came, changed, or are tried again."""
    call, verb, ledger = run.call, run.verb, run.ledger
    looker = looker_of_call(call, verb, ledger, run.pool, manifest, run.key)
    lacks = verb.lacks if ledger.get("finished") is not None else None
    is_lacking = lacks is not None and any(True for _ in lacks(ledger))
    retry = ledger.get(RETRY) if call.retry_failed is None else call.retry_failed
    looker.begin(call.folder, add=call.add, retry=retry, again=is_lacking or bool(ledger.get(LIMITED)))
    if ledger.get(RETRY) is not None:
        ledger.remember({RETRY: None})
    if is_lacking and lacks is not None:  # asked once more: what came or changed is open already
        ledger.open_again(dict.fromkeys(lacks(ledger)))
    return looker


def looker_of_call(
    call: Call, verb: Verb, ledger: Ledger, pool: LookPool, manifest: Manifest | None, key: bytes
) -> Looker:
    """Return what looks at the files of a call, which it has compared with no ledger yet."""
    exclude, follow_links = (call.folder, *call.exclude), call.settings.follow_links
    hashed = partial(hashed_path, key=key)
    listing = Listing(call.root, ledger, exclude, hashed, call.given, call.remote, call.shard, follow_links)
    return Looker(listing, ledger, pool, call.options, manifest, key, call.settings, verb.only)


def _compute(run: _Run, loading: Future[Any] | None, counter: Counter, chunks: Iterator[Chunk]) -> None:
    """Have chunks computed by the engine of a call, or here, and keep what comes of them."""
    call, verb, ledger = run.call, run.verb, run.ledger
    if verb.compute is not None:
        verb.compute()
    verb.sink.begin(ledger)
    model = None if call.engine is not None else (loading or run.loader.submit(run.load)).result()
    counts, num_done = ledger.counts(), ledger.num_done()
    call.progress.stage(verb.stage, counter.wait(3.0), num_done)
    call.watch.started(_facts(call, run.pack), counts, counter.total)
    parts = None
    if verb.shows_parts and call.shard is None:
        written = None if call.publication is None else call.publication.add
        parts = Parts(call.folder, run.hashed if call.options.hash_paths else None, written)
    commit = partial(_commit, run, parts, counts, counter)
    chunks = _announced(chunks, call.progress, counts, counter)
    plan = worker_plan(call, run.pack, verb, run.key)
    if call.engine is not None:
        call.engine.run(plan, chunks, commit, call.progress, _is_full(call))
    else:
        _compute_here(run, plan, model, chunks, commit)
    verb.sink.end(ledger)


def _announced(
    chunks: Iterator[Chunk], progress: Progress, counts: Mapping[str, int], counter: Counter
) -> Iterator[Chunk]:
    """Yield chunks, each once the progress knows how many files there are by then."""
    for chunk in chunks:
        progress.overall(counts["files"], counter.total, counts["studies"])
        yield chunk


def _compute_here(run: _Run, plan: WorkerPlan, model: Any, chunks: Iterator[Chunk], commit: Commit) -> None:
    """Compute chunks in this process."""
    call = run.call
    threads = nullcontext((run.loader, 1)) if plan.pack is None else encoder_threads()  # a model's need torch
    with threads as (encoders, num_encoders):
        work, num_readers = call.watch.work, call.settings.workers
        work.places |= {"read": num_readers, "decode": num_readers, "model": num_encoders}
        timed = TimedThreads(encoders, work, "model")
        context = replace(
            plan.context(model, run.pool, timed, num_encoders, call.progress),
            is_full=_is_full(call),
            halved=_halved(call.progress, run.ledger),
        )
        if run.verb.work is None:
            run_chunks(context, chunks, commit)
        else:
            run.verb.work(context, run.ledger, chunks, commit)


def _write(run: _Run, identity: dict[str, Any], *, is_cut: bool) -> bool:
    """Write tables, page and run.json of all rows; return whether they stood there already."""
    call, verb, ledger, work = run.call, run.verb, run.ledger, run.call.watch.work
    with work.at("write"):
        committed_s = ledger.write_seconds
        note_limit(ledger, verb.notes, call, is_cut=is_cut)
        described = partial(describe, identity, run.pack, ledger)
        already = write_down(ledger, call.folder, verb, described, run.hashed, call.options.hash_paths, call.progress)
        work.add("write", committed_s - ledger.write_seconds)  # the ledger counts its own
        if call.publication is not None:
            call.publication.finish()
    return already


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
        witness=_witness(call),
    )


def _witness(call: Call) -> Path | None:
    """Return a path that exists wherever the files of a call can be read; None for files that were named one by one."""
    if call.remote is not None:
        return call.remote.witness
    return None if call.given is not None else call.root.absolute()


def _is_full(call: Call) -> Callable[[], bool]:
    """Return whether files that are fetched have taken the room that they may take."""
    return bool if call.remote is None else partial(getattr, call.remote, "is_full")


def _commit(run: _Run, parts: Parts | None, counts: dict[str, int], counter: Counter, result: ChunkResult) -> None:
    """Commit a chunk to the ledger, count what it added, and write its rows before the run is finished."""
    grown = run.ledger.commit(result)
    counts["files"] += grown[0]
    counts["studies"] += grown[1]
    run.call.progress.overall(counts["files"], counter.total, counts["studies"])
    run.call.watch.committed(result.files, counts, counter.total)
    if parts is not None:
        parts.add(result)
    run.verb.sink.take(run.ledger, result)
    if run.call.remote is not None:
        run.call.remote.release(row.path for row in result.files)


def _pool(call: Call) -> LookPool:
    """Return what looks at files: on the nodes of an engine, else reading processes here, which read them, too."""
    if call.engine is not None:
        return call.engine.look_pool(call.settings, _witness(call), call.progress.note)
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


class LimitedChunks:
    """Chunks until so many files of the run have their row: a first look, which another call goes on with.

    Only whole chunks are done: what is in a chunk decides the batches that the model computes, and a run that went on
    from the middle of one could differ from an undisturbed one in the last bits of a score.

    Args:
        chunks: Chunks that are not done; they may come as they are found.
        limit: Number of files; None for all.
        num_done: Files that are done already.
    """

    def __init__(self, chunks: Iterator[Chunk], limit: int | None, num_done: int) -> None:
        self._chunks, self._limit, self._num = chunks, limit, num_done
        self.is_cut = False
        """Whether there are chunks that were left out."""

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        if self.is_cut:
            raise StopIteration
        chunk = next(self._chunks)
        if self._limit is not None and self._num >= self._limit:
            self.is_cut = True
            raise StopIteration
        self._num += len(chunk.members)
        return chunk


LIMITED = "limited"
"""What the ledger keeps of a run that left files out."""


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
    if not ledger.get(LIMITED):
        ledger.remember({"finished": hashes_of(folder)})
    if not already:
        Parts(folder).remove()
        progress.step()
    return already


def describe(identity: Mapping[str, Any], pack: RunPack | None, ledger: Ledger) -> dict[str, Any]:
    """Return what run.json says of every run besides its counts: no path, no time."""
    names = ("modality", "min_confidence", "group_by", "table")
    last = {n: identity[n] for n in ("device", "batch_size", "backend", "weeks") if identity.get(n) is not None}
    recipe = ledger.get("recipe")
    return {
        "medclip": identity["version"],
        **({} if recipe is None else {"recipe": recipe}),
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
    """Remember that a run was limited, and say so to whoever reads its results; or that it is not any more."""
    if is_cut:
        files = count(ledger.counts()["files"], "file")
        note = f"Limited: {files} have their row, and others were left out. The same call without a limit goes on."
        call.progress.note(note)
        ledger.remember({"notes": [*notes, note], "finished": None, LIMITED: True})
    elif ledger.get(LIMITED):
        ledger.remember({"finished": None, LIMITED: False})
