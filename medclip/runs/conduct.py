"""Conduct a run over files: claim the folder, look, read, encode, commit chunk by chunk, write down.

What is made of the units is the verb's business: `score` answers questions about them, `embed` keeps their vectors.
Called again on the same output folder, a run goes on after its last finished chunk and ends in the same bytes, wherever
it was stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from medclip.files.discover import LEDGER
from medclip.files.output import claim_folder, disk_errors, make_folder, remove_drafts
from medclip.files.pseudonyms import hashed_path, keyed_hash, load_key
from medclip.files.readers.pool import ReadingPool
from medclip.files.tables.manifest import Manifest, read_manifest
from medclip.models.encoding.parallel_encoding import encoder_threads
from medclip.progress import Progress
from medclip.runs.call import Call, inputs_of_call, num_files_of_call, refuse_empty, refuse_own_files
from medclip.runs.engines.engine import LookPool
from medclip.runs.engines.local import run_chunks
from medclip.runs.engines.worker_plan import WorkerPlan, load_worker_model
from medclip.runs.inputs.listing import Counter, Listing
from medclip.runs.inputs.look import Looker
from medclip.runs.ledger.chunk_result import ChunkResult
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.operations.limited_chunks import LimitedChunks
from medclip.runs.operations.purge import refuse_purged
from medclip.runs.operations.work_seconds import TimedThreads
from medclip.runs.outputs.parts import Parts
from medclip.runs.planning.identity import claim, run_identity
from medclip.runs.planning.options import RETRY
from medclip.runs.planning.plan import Chunk
from medclip.runs.planning.run_shard import claim_shard, finish_shard
from medclip.runs.run_pack import RunPack
from medclip.runs.units.read_unit import inspect
from medclip.runs.verb import Verb
from medclip.runs.write_down import LIMITED, describe, note_limit, write_down


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
        refuse_own_files(call)
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
        closing(verb.sink),
        call.publication or nullcontext(),
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
        _begin(call, verb, ledger)
        asked = call.asked if call.shard is not None or not options.hash_paths else call.asked_without_files
        ledger.remember({"notes": list(verb.notes), "asked": asked, "recipe": call.recipe})
        remove_drafts(folder)
        hashed = partial(hashed_path, key=key)
        listing = Listing(
            call.root, ledger, (folder, *call.exclude), hashed, call.given, call.remote, call.shard,
            settings.follow_links,
        )  # fmt: skip
        looker = Looker(listing, ledger, pool, options, manifest, key, settings, verb.only)
        lacks = verb.lacks if ledger.get("finished") is not None else None
        is_lacking = lacks is not None and any(True for _ in lacks(ledger))
        retry = ledger.get(RETRY) if call.retry_failed is None else call.retry_failed
        looker.begin(folder, add=call.add, retry=retry, again=is_lacking or bool(ledger.get(LIMITED)))
        if ledger.get(RETRY) is not None:
            ledger.remember({RETRY: None})
        if is_lacking and lacks is not None:  # asked once more: what came or changed is open already
            ledger.open_again(dict.fromkeys(lacks(ledger)))
        counter = Counter(call.root, num_files_of_call(call), 1 if call.shard is None else call.shard.num_shards)
        ledger.expects = counter.known
        chunks = LimitedChunks(looker.chunks(), call.limit, ledger.num_done())
        first = next(chunks, None)
        if first is not None:
            if verb.compute is not None:
                verb.compute()
            verb.sink.begin(ledger)
            model = None if call.engine is not None else (loading or loader.submit(load)).result()
            counts, num_done = ledger.counts(), ledger.num_done()
            progress.stage(verb.stage, max(counter.wait(3.0), num_done), num_done)
            watch.started(_facts(call, pack), counts, counter.total)
            parts = None
            if verb.shows_parts and call.shard is None:
                written = None if call.publication is None else call.publication.add
                parts = Parts(folder, hashed if options.hash_paths else None, written)
            committed = partial(_committed, parts, counts, counter, call, partial(verb.sink.take, ledger))
            todo, plan = chain([first], chunks), worker_plan(call, pack, verb, key)
            _compute(call, verb, plan, model, (pool, loader), ledger, todo, committed)
            verb.sink.end(ledger)
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
            if call.publication is not None:
                call.publication.finish()
        counts = ledger.counts()
        watch.wrote(counts, already=already)
        if first is not None and call.engine is None:  # what workers elsewhere do is not measured here
            progress.note(watch.report().sentence())
        return counts, already


def _begin(call: Call, verb: Verb, ledger: Ledger) -> None:
    """Begin what else a run writes to, once the folder is its own."""
    if call.publication is not None:
        call.publication.begin(ledger)
    if verb.begin is not None:
        verb.begin()


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


def _committed(
    parts: Parts | None,
    counts: dict[str, int],
    counter: Counter,
    call: Call,
    take: Callable[[ChunkResult], None],
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
    take(result)
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
