"""Those who make samples: threads that share one cache, or processes that hold a part of the samples each. No torch.

One crew makes the batches of all splits of a run: a second one for validation would double processes and memory.
"""

from __future__ import annotations

import faulthandler
import queue
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medclip.errors import MedclipError, Reason
from medclip.files.readers.pool import ReadingPool
from medclip.files.temporary_folder import TemporaryFolder
from medclip.shards.reading.samples import ShardReader
from medclip.text.tokenizers.tokenizer import Tokenizer
from medclip.training.batches.samples import NOTHING, Drawing, Room, Samples, Strings
from medclip.training.batches.slots import Arrays, Form, MappedSlots, Slots

WorkerKind = Literal["thread", "process"]
Row = tuple[int, int, int]
"""Epoch, sample, and how often the sample stood before in the epoch."""
GRACE_S = 5.0
"""What a process gets on top before it is killed, so that the time-out is told from here."""
_FRAMES = 6
_PARTS = 4
"""Jobs that each thread has of one batch."""


@dataclass(frozen=True)
class Split:
    """What samples are made of, and how."""

    reader: ShardReader
    drawing: Drawing


@dataclass(frozen=True)
class CrewOptions:
    """How many workers decode and augment, and what they may take."""

    kind: WorkerKind = "thread"
    """"process" where one Python is too slow to feed a GPU."""
    workers: int = 2
    cache_mb: float = 1024
    """Ceiling of the decoded images kept in memory, of all workers and splits together."""
    timeout_s: float = 300.0
    """Seconds a batch may take; after them it is an error."""


class Crew:
    """Workers that make rows of the splits that were added; they start with the first rows.

    Args:
        options: Number of workers, and what they may take.
        form: Size of the largest batch.
        tokenizer: Tokenizer that cuts the captions into tokens.
    """

    def __init__(self, options: CrewOptions, form: Form, tokenizer: Tokenizer | None = None) -> None:
        self.form, self.tokenizer, self.timeout_s = form, tokenizer, options.timeout_s
        self.kind: WorkerKind = options.kind
        self._workers, self._cache_mb = options.workers, options.cache_mb
        self._splits: list[Split] = []
        self._running: _Threads | _Processes | None = None

    def add(self, split: Split) -> int:
        """Have a split made, too; returns its number.

        Raises:
            AssertionError: The workers have begun.
        """
        assert self._running is None
        self._splits.append(split)
        return len(self._splits) - 1

    def start(self, split: int, rows: Sequence[Row]) -> Pending:
        """Have rows of a split made."""
        if self._running is None:
            kind = _Processes if self.kind == "process" else _Threads
            self._running = kind(self._splits, self._workers, self.form, self._cache_mb, self.timeout_s, self.tokenizer)
        return self._running.start(split, list(rows))

    def close(self) -> None:
        """Stop the workers. They begin anew with the next rows."""
        running, self._running = self._running, None
        if running is not None:
            running.close()

    def __del__(self) -> None:
        """Stop the workers of a crew that nobody has any more."""
        if getattr(self, "_running", None) is not None:
            self.close()


class Pending:
    """Rows of a batch that are being made.

    Args:
        slots: Blocks that the rows are put into.
        number: Number of the block.
        places: Places of the rows of each job.
        futures: Futures of the jobs.
    """

    def __init__(
        self, slots: Slots, number: int, places: list[list[int]], futures: list[Future[list[Strings]]]
    ) -> None:
        self._slots, self._number, self._places, self._futures = slots, number, places, futures
        self._left = len(futures) + 1  # and whoever has the batch
        self._lock = threading.Lock()
        self._released = False
        for future in futures:
            future.add_done_callback(lambda _: self._let_go())

    def wait(self) -> tuple[Arrays, list[Strings]]:
        """Return the block, and the strings of the rows in their order.

        Raises:
            MedclipError: TIMEOUT, with where the workers hang; what making a row raised.
        """
        strings: list[Strings] = [NOTHING] * sum(map(len, self._places))
        for job, places in enumerate(self._places):
            for place, values in zip(places, self._result(job), strict=True):
                strings[place] = values
        return self._slots.arrays(self._number), strings

    def release(self) -> None:
        """Let the block be used again, as soon as no worker writes to it."""
        with self._lock:
            released, self._released = self._released, True
        if not released:
            self._let_go()

    def cancel(self) -> None:
        """Forget the rows."""
        for future in self._futures:
            future.cancel()
        self.release()

    def _result(self, job: int) -> list[Strings]:
        raise NotImplementedError

    def _let_go(self) -> None:
        with self._lock:
            self._left -= 1
            free = self._left == 0
        if free:
            self._slots.free(self._number)


class _Threads:
    """Threads of this process: no start-up, one cache; Pillow lets go of the interpreter lock while it works.

    The threads are daemons: one that hangs in a system call does not keep the program from ending.
    """

    def __init__(
        self,
        splits: Sequence[Split],
        workers: int,
        form: Form,
        cache_mb: float,
        timeout_s: float,
        tokenizer: Tokenizer | None,
    ) -> None:
        room = Room(int(cache_mb * 2**20))
        self._samples = [Samples(split.reader, split.drawing, room, tokenizer) for split in splits]
        self._slots, self._timeout_s = Slots(form), timeout_s
        self._jobs: queue.SimpleQueue[tuple[Future[list[Strings]], Samples, list[Row], list[int], Arrays] | None]
        self._jobs = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._serve, name=f"medclip-data-{i}", daemon=True) for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def start(self, split: int, rows: list[Row]) -> Pending:
        number = self._slots.take()
        size = -(-len(rows) // (_PARTS * len(self._threads)))
        places = [list(range(i, min(i + size, len(rows)))) for i in range(0, len(rows), size)]
        futures: list[Future[list[Strings]]] = [Future() for _ in places]
        for future, part in zip(futures, places, strict=True):
            rows_of_part = [rows[place] for place in part]
            self._jobs.put((future, self._samples[split], rows_of_part, part, self._slots.arrays(number)))
        return _ThreadPending(self._slots, number, places, futures, self._timeout_s, self._threads)

    def close(self) -> None:
        """Let the threads end after what they are at."""
        for _ in self._threads:
            self._jobs.put(None)

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, samples, rows, places, arrays = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = [samples.make(*row).write(arrays, place) for row, place in zip(rows, places, strict=True)]
            except BaseException as error:  # told to whoever waits
                future.set_exception(error)
            else:
                future.set_result(result)


class _ThreadPending(Pending):
    def __init__(
        self,
        slots: Slots,
        number: int,
        places: list[list[int]],
        futures: list[Future[list[Strings]]],
        timeout_s: float,
        threads: list[threading.Thread],
    ) -> None:
        super().__init__(slots, number, places, futures)
        self._timeout_s, self._threads = timeout_s, threads

    def wait(self) -> tuple[Arrays, list[Strings]]:
        self._end = time.monotonic() + self._timeout_s
        return super().wait()

    def _result(self, job: int) -> list[Strings]:
        try:
            return self._futures[job].result(max(0.0, self._end - time.monotonic()))
        except FutureTimeoutError:
            frames = sys._current_frames()
            stacks = [traceback.extract_stack(frames[t.ident]) for t in self._threads if t.ident in frames]
            places = [[f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(stack)] for stack in stacks]
            raise _hangs(self._timeout_s, places) from None


class _Processes:
    """Processes: for machines where one Python is too slow to feed a GPU.

    Sample i is always made by process i modulo their number, so that each caches samples of its own. A batch is one job
    for each process; images, tokens and keys go to the block, only strings through the pipe.
    """

    def __init__(
        self,
        splits: Sequence[Split],
        workers: int,
        form: Form,
        cache_mb: float,
        timeout_s: float,
        tokenizer: Tokenizer | None,
    ) -> None:
        self._timeout_s, self._splits, self._tokenizer = timeout_s, tuple(splits), tokenizer
        self._folder = TemporaryFolder("data")
        self._slots = Slots(form, self._folder.path)
        needs = (self._splits, form, self._slots.path, cache_mb / workers, tokenizer)
        self._pools = [ReadingPool(1, timeout_s + GRACE_S, begin=(begin, needs)) for _ in range(workers)]

    def start(self, split: int, rows: list[Row]) -> Pending:
        number = self._slots.take()
        parts: list[list[int]] = [[] for _ in self._pools]
        for place, (_, index, _) in enumerate(rows):
            parts[index % len(parts)].append(place)
        return _ProcessPending(self, self._slots, number, split, rows, parts)

    def close(self) -> None:
        """Stop the processes."""
        for pool in self._pools:
            pool.close()
        self._slots.close()
        self._folder.close()

    def submit(self, worker: int, slot: int, split: int, rows: list[Row], places: list[int]) -> Future[list[Strings]]:
        """Have one process make some rows of a batch."""
        return self._pools[worker].submit(make_rows, split, rows, places, slot, self._dump(worker), self._timeout_s)

    def _dump(self, worker: int) -> str:
        return str(self._folder.path / f"{worker}.txt")

    def result(
        self, worker: int, slot: int, split: int, rows: list[Row], places: list[int], future: Future[list[Strings]]
    ) -> list[Strings]:
        """Wait for what one process makes. A sample that takes the process down is a bad one."""
        try:
            return future.result()
        except MedclipError as e:
            if e.reason is Reason.TIMEOUT:
                raise _hangs(self._timeout_s, [_frames(Path(self._dump(worker)))]) from None
            if e.reason is not Reason.DECODER_CRASHED:
                raise
        if len(rows) == 1:
            source = self._splits[split]
            samples = Samples(source.reader, source.drawing, Room(0), self._tokenizer)
            bad = samples.bad(rows[0][1], str(Reason.DECODER_CRASHED))
            return [bad.write(self._slots.arrays(slot), places[0])]
        strings: list[Strings] = []
        for row, place in zip(rows, places, strict=True):
            again = self.submit(worker, slot, split, [row], [place])
            strings += self.result(worker, slot, split, [row], [place], again)
        return strings


class _ProcessPending(Pending):
    def __init__(
        self, crew: _Processes, slots: Slots, number: int, split: int, rows: list[Row], parts: list[list[int]]
    ) -> None:
        jobs = [
            (worker, number, split, [rows[p] for p in places], places) for worker, places in enumerate(parts) if places
        ]
        super().__init__(slots, number, [places for *_, places in jobs], [crew.submit(*job) for job in jobs])
        self._crew, self._jobs = crew, jobs

    def _result(self, job: int) -> list[Strings]:
        return self._crew.result(*self._jobs[job], self._futures[job])


_samples: list[Samples] = []
"""Of this process, where it is one that makes samples."""
_slots: MappedSlots | None = None


def begin(splits: Sequence[Split], form: Form, path: str, cache_mb: float, tokenizer: Tokenizer | None) -> None:
    """Make a process ready, before its first job; `path` is that of the blocks."""
    global _samples, _slots
    room = Room(int(cache_mb * 2**20))
    _samples = [Samples(split.reader, split.drawing, room, tokenizer) for split in splits]
    _slots = MappedSlots(path, form)


def make_rows(split: int, rows: list[Row], places: list[int], slot: int, dump: str, timeout_s: float) -> list[Strings]:
    """Make rows in a process; one that takes too long leaves a dump of where it is.

    Args:
        split: Number of the split.
        rows: Rows to make.
        places: Places of the rows in the block.
        slot: Number of the block.
        dump: File that gets the stack.
        timeout_s: Seconds until the stack is dumped.
    """
    assert _slots is not None
    arrays = _slots.arrays(slot)
    with open(dump, "w", encoding="utf-8") as file:
        faulthandler.dump_traceback_later(timeout_s, file=file)
        try:
            return [_samples[split].make(*row).write(arrays, place) for row, place in zip(rows, places, strict=True)]
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
