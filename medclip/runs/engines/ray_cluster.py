"""Compute the chunks of a run on a Ray cluster: Ray holds the workers, and everything that has to last is ours.

This process plans, and it alone writes the ledger; files are hashed and recognised on the nodes (`ray_looks`). Rows
that are done are never submitted; a worker gets one chunk of about 32 files at a time and one more to read ahead, and
its rows are committed as soon as they come. A worker asks for half a CPU (and one GPU where the run computes on
CUDA): Ray's number decides where it is placed, not what it may use, and whole CPUs that are never free are why such
runs stand still.

A worker that is lost is replaced, and its chunks are done again: a chunk that lost a worker goes to one that has
nothing else, so that it is known which chunk it is, and after three lost workers its files fail.

Without RAY_ADDRESS a cluster is started for this run (`ray_connection`). What crosses the cluster are headers, file
names and rows: it must be one that may see patients.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any

from medclip.errors import MedclipError, Problem, Reason, did_you_mean
from medclip.files.readers.memory import budget_bytes
from medclip.files.readers.pool import ReadingPool
from medclip.models.devices import torch_threads
from medclip.models.encoding.parallel_encoding import num_encoders
from medclip.progress import Progress, Silent
from medclip.runs.engines.engine import Commit, Engine, WorkerPlan
from medclip.runs.engines.ray_connection import WorkerLostError, connected
from medclip.runs.engines.ray_looks import RayLooks
from medclip.runs.planning.plan import DONE_FOR_GOOD, Chunk
from medclip.runs.rows import ChunkResult
from medclip.runs.units.chunk import ChunkWork, failed_chunk
from medclip.settings import Settings
from medclip.wording import count

PIP_LINE = "pip install 'medclip-imaging[ray]'"
CPUS = 0.5
"""What a worker asks for."""
DEPTH = 2
"""Chunks that a worker has: one is computed, and the next one read."""
START_S = 300.0
"""How long a run waits for its first worker, or for another one when all are lost."""
MOST_LOSSES = 3
"""Workers that one chunk may cost."""
_MOST_IN_A_ROW = 12
"""Workers that are lost without any row coming in between, before the run gives up."""
_TICK_S = 2.0
_LOST = Problem(
    Reason.DECODER_CRASHED,
    f"{MOST_LOSSES} workers of the cluster were lost while they computed this file and its neighbours.",
)


def check_ray() -> None:
    """Refuse to run where Ray is not installed.

    Raises:
        MedclipError: MISSING_CODEC.
    """
    from importlib.util import find_spec

    if find_spec("ray") is None:
        raise MedclipError(
            Reason.MISSING_CODEC, "the engine ray needs a package that is not installed.", hint=f"Run: {PIP_LINE}"
        )


class ChunkWorker:
    """One worker: it holds the model and reading processes, and turns chunks into rows.

    Args:
        plan: Plan of the run.
        share: Workers that share its node.
        readers: Reading processes of the worker; its share of the cores where None.
    """

    def __init__(self, plan: WorkerPlan, share: int, readers: int | None) -> None:
        self._plan, self._share, self._readers = plan, share, readers
        self._lock = Lock()
        self._context: Any = None

    def start(self) -> MedclipError | None:
        """Load the model and start what reads; return why that cannot be done here."""
        settings = self._plan.settings
        share = max(1, self._share)
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        total = budget_bytes(settings.memory_bytes)
        settings = replace(
            settings,
            workers=self._readers or max(1, cores // share),
            memory_bytes=None if total is None else max(total // share, 10**8),
        )
        try:
            with torch_threads(1):
                model = self._plan.load()
        except MedclipError as error:
            return error
        torch_threads(1).__enter__()  # for good: with one thread a batch does not depend on the cores
        num = max(1, num_encoders() // share)
        threads = ThreadPoolExecutor(num, thread_name_prefix="medclip-encoder")
        pool = ReadingPool.of(settings)
        self._context = self._plan.context(model, pool, threads, num, Silent())
        return None

    def compute(self, chunk: Chunk) -> ChunkResult | MedclipError:
        """Return the rows of a chunk, or why the run cannot go on.

        It is called from two threads: what the one reads, the model computes when the other is through.
        """
        context = self._context
        try:
            readings = context.first_readings([chunk])
            readings = chain([next(readings)], readings)  # all of them are asked for now
            with self._lock:
                return ChunkWork.begin(context, chunk, readings).finish()
        except MedclipError as error:
            return error


@dataclass(eq=False)
class _Task:
    chunk: Chunk
    """In a plan of its own."""
    num_losses: int = 0


@dataclass(eq=False)
class _Worker:
    handle: Any
    starting: Any
    """Ref of its start; None once it is ready."""
    tasks: dict[Any, _Task] = field(default_factory=dict)
    """By the refs of their results."""

    def takes(self, task: _Task) -> bool:
        """Whether it has room for a task: one that lost a worker has it for itself."""
        if self.starting is not None:
            return False
        alone = task.num_losses or any(other.num_losses for other in self.tasks.values())
        return not self.tasks if alone else len(self.tasks) < DEPTH


@dataclass(frozen=True)
class RayEngine:
    """The engine `ray`."""

    num_workers: int | None = None
    """None for one on each node, or one for each GPU."""
    readers: int | None = None
    """Reading processes of each worker; its share of the cores of its node where None."""

    def look_pool(self, settings: Settings, witness: Path | None, note: Callable[[str], None]) -> RayLooks:
        """Return what looks at files on the nodes of the cluster, see `medclip.runs.engines.engine.Engine`."""
        return RayLooks(settings, self.readers, witness, note)

    def run(
        self,
        plan: WorkerPlan,
        chunks: Iterator[Chunk],
        commit: Commit,
        progress: Progress,
        is_full: Callable[[], bool] = bool,
    ) -> None:
        """Work through chunks, see `medclip.runs.engines.engine.Engine`."""
        with connected(progress.note) as ray:
            gpus = 1 if plan.device.startswith("cuda") else 0
            num_nodes, num_gpus = _room(ray, gpus)
            wanted = self.num_workers or (num_gpus if gpus else num_nodes)
            options = {
                "num_cpus": CPUS,
                "num_gpus": gpus,
                "max_concurrency": DEPTH,
                "max_restarts": 0,
                "scheduling_strategy": "SPREAD",
            }
            remote = ray.remote(**options)(ChunkWorker)
            share = -(-wanted // num_nodes)
            crew = _Crew(ray, lambda: remote.remote(plan, share, self.readers), wanted, is_full)
            progress.note(f"Computing on Ray: {count(wanted, 'worker')}, {count(num_nodes, 'node')}.")
            context = plan.context(None, None, None, 1, progress)

            def commit_and_count(result: ChunkResult) -> None:
                commit(result)
                progress.step(len(result.files))

            crew.work(chunks, commit_and_count, lambda chunk: failed_chunk(context, chunk, _LOST))


class _Crew:
    """The workers of a run, and what each of them has.

    Args:
        ray: Connection to Ray.
        hire: Function that returns a new worker.
        size: Number of workers.
        is_full: Function that tells whether no further chunk is to be begun while some are under way.
    """

    def __init__(self, ray: Any, hire: Any, size: int, is_full: Callable[[], bool] = bool) -> None:
        self._ray, self._hire, self._is_full = ray, hire, is_full
        self._workers: list[_Worker] = []
        self._again: deque[_Task] = deque()
        self._held: _Task | None = None
        self._losses = 0
        self._idle_since = time.monotonic()
        for _ in range(size):
            self._add()

    def work(self, chunks: Iterator[Chunk], commit: Any, failed: Any) -> None:
        """Have all chunks computed.

        Args:
            chunks: Chunks, which are asked for as there is room for them.
            commit: Function called with the rows of each chunk.
            failed: Function that returns the rows of a chunk that nobody can compute.
        """
        self._commit, self._failed = commit, failed
        while True:
            while self._assign(chunks):
                pass
            waiting = {ref: worker for worker in self._workers for ref in (worker.starting, *worker.tasks) if ref}
            if not self._is_under_way() and not self._is_work_left(chunks):
                return
            ready, _ = self._ray.wait(list(waiting), num_returns=1, timeout=_TICK_S)
            for ref in ready:
                self._take(waiting[ref], ref)
            if any(worker.starting is None for worker in self._workers):
                self._idle_since = time.monotonic()
            elif time.monotonic() - self._idle_since > START_S:
                raise MedclipError(
                    Reason.BUSY,
                    f"the Ray cluster has had no room for a worker for {START_S:g} s: each asks for {CPUS:g} CPU.",
                    hint="Wait until other jobs have ended, or add a node; the same command goes on.",
                )

    def _is_under_way(self) -> bool:
        return any(worker.tasks for worker in self._workers)

    def _is_work_left(self, chunks: Iterator[Chunk]) -> bool:
        if not self._again and self._held is None:
            self._hold(chunks)
        return bool(self._again) or self._held is not None

    def _hold(self, chunks: Iterator[Chunk]) -> None:
        chunk = next(chunks, None)
        self._held = None if chunk is None else _Task(chunk.alone())

    def _assign(self, chunks: Iterator[Chunk]) -> bool:
        """Assign one chunk to a worker that has room; return whether there were both."""
        free = [worker for worker in self._workers if worker.starting is None and len(worker.tasks) < DEPTH]
        if not free or (self._is_under_way() and self._is_full()) or not self._is_work_left(chunks):
            return False
        task = self._again[0] if self._again else self._held
        assert task is not None
        if not self._again and task.chunk.plan.state == DONE_FOR_GOOD and self._has_early_tasks():
            return False  # rows of a study that has grown come after those of its first files, never before
        worker = next((worker for worker in sorted(free, key=lambda w: len(w.tasks)) if worker.takes(task)), None)
        if worker is None:
            return False
        if self._again:
            self._again.popleft()
        else:
            self._held = None
        worker.tasks[worker.handle.compute.remote(task.chunk)] = task
        return True

    def _has_early_tasks(self) -> bool:
        tasks = [*self._again, *(task for worker in self._workers for task in worker.tasks.values())]
        return any(task.chunk.plan.state != DONE_FOR_GOOD for task in tasks)

    def _take(self, worker: _Worker, ref: Any) -> None:
        """Take what a worker returned, or count its loss."""
        if worker not in self._workers:  # lost with another of its refs
            return
        try:
            value = self._ray.get(ref)
        except WorkerLostError:
            self._lose(worker)
            return
        if isinstance(value, MedclipError):
            raise value
        self._losses = 0 if ref in worker.tasks else self._losses
        if ref in worker.tasks:
            del worker.tasks[ref]
            self._commit(value)
        else:
            worker.starting = None

    def _lose(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        self._losses += 1
        for task in worker.tasks.values():
            task.num_losses += 1
            if task.num_losses < MOST_LOSSES:
                self._again.append(task)
            else:
                self._commit(self._failed(task.chunk))
        if self._losses >= _MOST_IN_A_ROW:
            raise MedclipError(
                Reason.OUT_OF_MEMORY,
                f"{count(self._losses, 'worker')} of the Ray cluster were lost one after the other.",
                hint="See Ray's log for why, often memory; the same command goes on.",
            )
        self._add()

    def _add(self) -> None:
        handle = self._hire()
        self._workers.append(_Worker(handle, handle.start.remote()))


def _room(ray: Any, gpus: int) -> tuple[int, int]:
    """Return how many nodes can hold a worker, and their GPUs.

    Raises:
        MedclipError: WRONG_USE where none can.
    """
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    able = [each for each in resources if each.get("CPU", 0) >= CPUS and each.get("GPU", 0) >= gpus]
    if not able:
        needs = f"{CPUS:g} CPU" + (" and a GPU" if gpus else "")
        raise MedclipError(
            Reason.WRONG_USE,
            f"no node of the Ray cluster can hold a worker, which asks for {needs}; "
            f"{count(len(resources), 'node')} with {sum(each.get('CPU', 0) for each in resources):g} CPU and "
            f"{sum(each.get('GPU', 0) for each in resources):g} GPU.",
            hint="Start the nodes with --num-cpus 1 or more (--num-gpus for --device cuda), or use --engine local.",
        )
    return len(able), int(sum(each.get("GPU", 0) for each in able))


LOCAL, RAY = "local", "ray"


def choose_engine(engine: str, workers: int | None = None) -> Engine | None:
    """Return the engine that a caller names; None for this process.

    Args:
        engine: "local", "ray" or "ray:N" with the number of workers; those of the cluster where none is named.
        workers: Reading processes of each worker; the cores of its share of a node where None.

    Raises:
        MedclipError: WRONG_USE for another word; MISSING_CODEC where Ray is not installed.

    Example:
        >>> choose_engine("local") is None
        True
    """
    name, colon, number = engine.partition(":")
    if name == LOCAL and not colon:
        return None
    if name != RAY or (colon and not (number.isdecimal() and int(number))):
        raise MedclipError(
            Reason.WRONG_USE,
            f"a run has the engine local, ray or ray:N with a number of workers from 1, not {engine!r}.",
            hint=did_you_mean(name, (LOCAL, RAY)),
        )

    check_ray()
    return RayEngine(int(number) if colon else None, workers)
