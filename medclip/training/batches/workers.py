"""Those who make samples: threads that share one cache, or processes that hold a part of the samples each. No torch."""

from __future__ import annotations

import faulthandler
import queue
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medclip.errors import MedclipError, Reason
from medclip.files.readers.pool import ReadingPool
from medclip.files.remote import Place
from medclip.shards.reading.samples import ShardReader
from medclip.shards.reading.shard_cache import ShardCache
from medclip.shards.reading.shard_files import Verify
from medclip.text.tokenizers.tokenizer import Tokenizer
from medclip.training.batches.samples import Drawing, Made, Samples, encode_caption

WorkerKind = Literal["thread", "process"]
Row = tuple[int, int, int]
"""Epoch, sample, and how often the sample stood before in the epoch."""
GRACE_S = 5.0
"""What a process gets on top before it is killed, so that the time-out is told from here."""
_FRAMES = 6


class ThreadCrew:
    """Threads of this process: no start-up, one cache; Pillow lets go of the interpreter lock while it works.

    The threads are daemons: one that hangs in a system call does not keep the program from ending.
    """

    def __init__(self, samples: Samples, workers: int, timeout_s: float) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[Made], Row] | None] = queue.SimpleQueue()
        self._samples, self._timeout_s = samples, timeout_s
        self._threads = [
            threading.Thread(target=self._serve, name=f"medclip-data-{i}", daemon=True) for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def start(self, rows: Sequence[Row]) -> _ThreadPending:
        """Have rows made."""
        futures: list[Future[Made]] = [Future() for _ in rows]
        for job in zip(futures, rows, strict=True):
            self._jobs.put(job)
        return _ThreadPending(futures, self._timeout_s, self._threads)

    def close(self) -> None:
        """Let the threads end after what they are at."""
        for _ in self._threads:
            self._jobs.put(None)

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, row = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._samples.make(*row))
            except BaseException as error:  # told to whoever waits
                future.set_exception(error)


class _ThreadPending:
    def __init__(self, futures: list[Future[Made]], timeout_s: float, threads: list[threading.Thread]) -> None:
        self._futures, self._timeout_s, self._threads = futures, timeout_s, threads

    def wait(self) -> list[Made]:
        """Return the samples, in the order of the rows."""
        end = time.monotonic() + self._timeout_s
        try:
            return [f.result(max(0.0, end - time.monotonic())) for f in self._futures]
        except FutureTimeoutError:
            frames = sys._current_frames()
            stacks = [traceback.extract_stack(frames[t.ident]) for t in self._threads if t.ident in frames]
            places = [[f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(stack)] for stack in stacks]
            raise _hangs(self._timeout_s, places) from None

    def cancel(self) -> None:
        """Forget those that nobody has begun."""
        for future in self._futures:
            future.cancel()


@dataclass(frozen=True)
class _Setup:
    """What a process needs to make samples; it reads the index itself."""

    folders: tuple[Place, ...]
    split: str
    verify: Verify
    cache: ShardCache
    drawing: Drawing
    cache_mb: float
    tokenizer: Tokenizer | None


class ProcessCrew:
    """Processes: for machines where one Python is too slow to feed a GPU.

    Sample i is always made by process i modulo their number, so that each caches samples of its own.
    """

    def __init__(
        self,
        reader: ShardReader,
        drawing: Drawing,
        cache_mb: float,
        workers: int,
        timeout_s: float,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        setup = _Setup(
            reader.folders, reader.split, reader.verify, reader.cache, drawing, cache_mb / workers, tokenizer
        )
        self._tokenizer = tokenizer
        self._timeout_s = timeout_s
        self._dumps = tempfile.TemporaryDirectory(prefix="medclip-data-", ignore_cleanup_errors=True)
        self._pools = [ReadingPool(1, timeout_s + GRACE_S, begin=(begin, (setup,))) for _ in range(workers)]

    def start(self, rows: Sequence[Row]) -> _ProcessPending:
        """Have rows made."""
        parts: list[list[int]] = [[] for _ in self._pools]
        for place, (_, index, _) in enumerate(rows):
            parts[index % len(parts)].append(place)
        futures = [self._submit(w, [rows[p] for p in part]) if part else None for w, part in enumerate(parts)]
        return _ProcessPending(self, list(rows), parts, futures)

    def close(self) -> None:
        """Stop the processes."""
        for pool in self._pools:
            pool.close()
        self._dumps.cleanup()

    def _submit(self, worker: int, rows: list[Row]) -> Future[Any]:
        return self._pools[worker].submit(make_rows, rows, self._dump(worker), self._timeout_s)

    def _dump(self, worker: int) -> str:
        return str(Path(self._dumps.name) / f"{worker}.txt")

    def result(self, worker: int, rows: list[Row], future: Future[Any]) -> list[Made]:
        """Wait for what one process makes. A sample that takes the process down is a bad one."""
        try:
            return future.result()
        except MedclipError as e:
            if e.reason is Reason.TIMEOUT:
                raise _hangs(self._timeout_s, [_frames(Path(self._dump(worker)))]) from None
            if e.reason is not Reason.DECODER_CRASHED:
                raise
        if len(rows) == 1:
            return [Made(None, encode_caption(self._tokenizer, ""), bad=str(Reason.DECODER_CRASHED))]
        return [sample for row in rows for sample in self.result(worker, [row], self._submit(worker, [row]))]


class _ProcessPending:
    def __init__(
        self, crew: ProcessCrew, rows: list[Row], parts: list[list[int]], futures: list[Future[Any] | None]
    ) -> None:
        self._crew, self._rows, self._parts, self._futures = crew, rows, parts, futures

    def wait(self) -> list[Made]:
        results: dict[int, Made] = {}
        for worker, (part, future) in enumerate(zip(self._parts, self._futures, strict=True)):
            if future is not None:
                samples = self._crew.result(worker, [self._rows[p] for p in part], future)
                results.update(zip(part, samples, strict=True))
        return [results[place] for place in range(len(self._rows))]

    def cancel(self) -> None:
        for future in self._futures:
            if future is not None:
                future.cancel()


Crew = ThreadCrew | ProcessCrew
"""Workers that make samples."""
Pending = _ThreadPending | _ProcessPending
"""Rows that are being made."""


_samples: Samples | None = None
"""Of this process, where it is one that makes samples."""


def begin(setup: _Setup) -> None:
    """Open the split in a process, before its first job."""
    global _samples
    reader = ShardReader(setup.folders, setup.split, verify=setup.verify, cache=setup.cache)
    _samples = Samples(reader, setup.drawing, setup.cache_mb, setup.tokenizer)


def make_rows(rows: list[Row], dump: str, timeout_s: float) -> list[Made]:
    """Make rows in a process; one that takes too long leaves a dump of where it is."""
    assert _samples is not None
    with open(dump, "w", encoding="utf-8") as file:
        faulthandler.dump_traceback_later(timeout_s, file=file)
        try:
            return [_samples.make(*row) for row in rows]
        finally:
            faulthandler.cancel_dump_traceback_later()


def _frames(dump: Path) -> list[str]:
    """Read the frames of the thread that works, innermost first, from a dump of faulthandler."""
    try:
        lines = dump.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    frames = []
    for line in lines:
        path, comma, rest = line.strip().removeprefix('File "').partition('", line ')
        if comma:
            number, _, name = rest.partition(" in ")
            frames.append(f"{Path(path).name}:{number} {name}")
    return frames


def _hangs(timeout_s: float, stacks: list[list[str]]) -> MedclipError:
    places = "; ".join(" < ".join(stack[:_FRAMES]) for stack in stacks if stack) or "no stack could be read"
    return MedclipError(
        Reason.TIMEOUT,
        f"no batch came within {timeout_s:g} s. The workers are at (innermost first): {places}.",
        hint="Is the disk or the network file system slow or gone? data.timeout_s allows more time.",
    )
