"""One thread and its reading process: what becomes of a job when the process dies, hangs, grows or cannot be started.

That a process dies is nobody's fault until it happens again: the system kills processes, too. A job whose process died
is done once more in a fresh one, and only the second death is its own, or the third where it was killed from outside. A
job that took too long is not repeated: it had its time, and a file that hangs would cost twice as much. But only time
in which this process ran counts, so that a machine that was asleep makes no file late. What a drive does not deliver is
asked for again, a few times and with pauses; a file that is damaged is not.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from functools import partial
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.readers.job_queue import Effort, Job, JobQueue, Server
from medclip.files.readers.memory import LEAST_BYTES, MemoryBudget, gigabytes
from medclip.files.readers.worker import HEADER, OUT_OF_MEMORY, PASSING, Patience, frame
from medclip.wording import duration

# One reading process and the two pipes to it.
#
# Only the thread that started a process talks to it, waits for it and stops it. So nothing can stop a process for the
# sake of a job that it has answered already, and the next job cannot pay for the one before.

TICK_S = 0.05
"""How often whoever waits looks whether it still should."""
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_STARTER = "import sys; sys.path[:] = {path!r}; from medclip.files.readers.worker import main; main({limits})"
_STOP_S = 5.0


class ReadingProcess:
    """A process that does jobs, one at a time. It never imports torch and uses one BLAS thread.

    Args:
        memory_bytes: Limit of the process's address space; None for none.
        data_bytes: Limit of the memory that the process may write to; None for none.

    Raises:
        OSError: The system has no process or no memory to spare.
    """

    def __init__(self, memory_bytes: int | None = None, data_bytes: int | None = None) -> None:
        path = [entry for entry in sys.path if entry]
        limits = f"{os.getpid()}, {memory_bytes}, {data_bytes}"
        environment = {**os.environ, **dict.fromkeys(_ONE_THREAD, "1")}
        self._process = start_python(_STARTER.format(path=path, limits=limits), environment)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._jobs: Any = self._process.stdin
        self._answers: Any = self._process.stdout
        self._for_jobs, self._for_answers = select.poll(), select.poll()
        for stream, poll, event in (
            (self._jobs, self._for_jobs, select.POLLOUT),
            (self._answers, self._for_answers, select.POLLIN),
        ):
            os.set_blocking(stream.fileno(), False)
            poll.register(stream, event)

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether it is gone, as far as the system has noticed."""
        return self._process.poll() is not None

    def ask(self, frame: bytes, tick: Callable[[], None]) -> bytearray:
        """Send a job and wait for the answer.

        Args:
            frame: The job.
            tick: Function called every TICK_S while nothing comes. What it raises ends the waiting; the process must be
                stopped then.

        Returns:
            The body of the answer's frame.

        Raises:
            EOFError: The process has ended.
            OSError: So it has.
        """
        rest = memoryview(frame)
        while rest:
            written = self._jobs.write(rest)
            if written is None:
                _wait(self._for_jobs, tick)
            else:
                rest = rest[written:]
        return self.answer(tick)

    def answer(self, tick: Callable[[], None]) -> bytearray:
        """Wait for an answer; the first one, without a job, is an empty one that says it is ready."""
        _wait(self._for_answers, tick)
        (size,) = HEADER.unpack(self._read(HEADER.size, tick))
        return self._read(size, tick)

    def stop(self) -> int | None:
        """Kill the process.

        Returns:
            How it ended: its exit code, or less than 0 for a signal. None for one that cannot even be killed, since it
            waits for a dead disk.
        """
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_S)
        for stream in (self._jobs, self._answers):
            with contextlib.suppress(OSError):
                stream.close()
        return self._process.returncode

    def _read(self, size: int, tick: Callable[[], None]) -> bytearray:
        body = bytearray(size)
        rest = memoryview(body)
        while rest:
            num_bytes = self._answers.readinto(rest)
            if num_bytes == 0:
                raise EOFError
            if num_bytes is None:
                _wait(self._for_answers, tick)
            else:
                rest = rest[num_bytes:]
        return body


def start_python(code: str, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a program that talks over pipes: standard input and output."""
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        env=environment,
    )


def _wait(poll: select.poll, tick: Callable[[], None]) -> None:
    while not poll.poll(TICK_S * 1000):
        tick()


_START_PATIENCE_S = 300.0
"""How long nothing is read at all, because no process can be started, before the run gives up."""
_START_S = 60.0
"""After which a process that is not ready never will be."""
_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_FOR_NOW = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""What a system answers that has no process, memory or descriptor to spare."""
_LONGEST_TICK_S = 1.0
_CRASHES, _KILLS = 2, 3
"""Deaths of its process after which a file fails. One that is killed from outside, by a system short of memory or by
somebody who ends programs, is less often the cause than one whose decoder crashed."""


class _Again(Exception):
    """A job has to be done once more, perhaps alone, perhaps after a pause."""

    def __init__(self, *, alone: bool = False, after_s: float = 0.0) -> None:
        self.alone, self.after_s = alone, after_s


class _Passing(Exception):
    """The drive did not deliver a file, and may in a moment."""

    def __init__(self, error: MedclipError) -> None:
        self.error = error


class Serving(Server):
    """One thread and its process."""

    def __init__(
        self,
        queue: JobQueue,
        timeout_s: float,
        memory_bytes: int | None,
        budget: MemoryBudget | None,
        note_once: Callable[[str, str], None],
        begin: tuple[Callable[..., Any], tuple[Any, ...]] | None = None,
        patience: Patience | None = None,
        name: str = "",
    ) -> None:
        super().__init__(self._stop, name=name)
        self._patience = patience or Patience()
        self._queue, self._timeout_s, self._memory_bytes = queue, timeout_s, memory_bytes
        self._budget, self._note_once = budget, note_once
        self._begin = begin
        self._begun = False
        self._process: ReadingProcess | None = None
        self._failing_since, self._num_failures = 0.0, 0
        queue.register(self)

    def run(self) -> None:
        """Do jobs until the queue is closed."""
        while (job := self._queue.take(self)) is not None:
            result, failure = None, None
            try:
                result = self._attempt(job)
            except _Again as again:
                if again.after_s:
                    self._queue.closed.wait(again.after_s)
                self._queue.repeat(self, alone=again.alone)
                continue
            except _NoProcess as error:
                failure = self._count_failure(error)
                if failure is None:
                    self._queue.repeat(self)
                    self._queue.closed.wait(_PAUSES_S[min(self._num_failures, len(_PAUSES_S)) - 1])
                    continue
            except BaseException as error:
                failure = error
            keeps_too_much = self._queue.done(self)
            job.future.effort = Effort(max(0, job.num_attempts - 1), job.seconds, self.name)
            if failure is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(failure)
            if keeps_too_much:
                self._stop()
            if self._budget and self._budget.is_taken_by_parent:
                self._note_once("budget", _parent_holds(self._budget))
        self._stop()

    def _attempt(self, job: Job) -> Any:
        """Do a job once, and count that."""
        process = self._running()
        job.num_attempts += 1
        began = time.monotonic()
        try:
            result = self._do(process, job)
        except _Passing as passing:
            pause_s = self._patience.pause_s(job.num_read_errors)
            if pause_s is None:
                raise passing.error from None
            job.num_read_errors += 1
            self._note_once("drive", "A file could not be read from its drive; it is tried again a few times.")
            raise _Again(after_s=pause_s) from None
        finally:
            seconds = time.monotonic() - began
            job.seconds += seconds
            self._queue.count_seconds(job, seconds)
        self._patience.succeeded()
        return result

    def _do(self, process: ReadingProcess, job: Job) -> Any:
        request = frame((job.function, job.arguments))
        deadline = Deadline(max(self._timeout_s, _START_S))

        def tick() -> None:
            if self._queue.closed.is_set():
                raise CancelledError
            if deadline.is_over():
                raise _late(self._timeout_s)
            if self._queue.is_too_much(self):
                if job.alone or self._queue.num_processes() == 1:
                    assert self._budget is not None
                    raise _over_budget(self._budget)
                raise _Again(alone=True)

        try:
            answer = self._first(process, tick)
            if answer is None:
                deadline = Deadline(self._timeout_s)
                answer = process.ask(request, tick)
        except (EOFError, OSError):
            code = self._stop()
            is_killed = code == -signal.SIGKILL
            job.num_deaths += 1
            job.num_kills += is_killed
            if job.num_deaths >= (_KILLS if job.num_kills == job.num_deaths else _CRASHES):
                raise _crashed(code) from None
            # What the system kills mostly needs memory: it gets all there is.
            raise _Again(alone=self._budget is not None and is_killed) from None
        except BaseException:
            self._stop()
            raise
        good, value = pickle.loads(answer)  # noqa: S301 - written by our own worker
        if good:
            return value
        if good is PASSING:
            raise _Passing(value)
        raise value if isinstance(value, MedclipError) else self._unexpected(value)

    def _first(self, process: ReadingProcess, tick: Callable[[], None]) -> bytearray | None:
        """Do in a new process what comes before its first job. Returns the answer only where that is an error."""
        if self._begun or self._begin is None:
            return None
        answer = process.ask(frame(self._begin), tick)
        self._begun, _ = pickle.loads(answer)  # noqa: S301 - written by our own worker
        return None if self._begun else answer

    def _running(self) -> ReadingProcess:
        """Return a process that is ready.

        Raises:
            _NoProcess: None can be started now.
        """
        if self._process is not None and self._process.has_ended:  # while it had nothing to do
            self._stop()
        if self._process is None:
            data_bytes = None if self._budget is None else max(self._budget.total_bytes, LEAST_BYTES)
            try:
                self._process = ReadingProcess(self._memory_bytes, data_bytes)
            except OSError as error:
                if error.errno not in _FOR_NOW:
                    raise
                raise _NoProcess(error.strerror) from None
            self.pid = self._process.pid
            deadline = Deadline(_START_S)
            try:
                self._process.answer(partial(self._check_start, deadline))
            except (EOFError, OSError):
                raise _NoProcess(f"it ended with code {self._stop()}") from None
            except BaseException:
                self._stop()
                raise
            self._num_failures = 0
        return self._process

    def _check_start(self, deadline: Deadline) -> None:
        if self._queue.closed.is_set():
            raise CancelledError
        if deadline.is_over():
            raise _NoProcess(f"it was not ready after {duration(_START_S)}")

    def _count_failure(self, error: _NoProcess) -> MedclipError | None:
        """Return the end of the run where nothing was read for minutes; None where waiting may help."""
        now = time.monotonic()
        if self._num_failures == 0 or self._queue.num_processes():
            self._failing_since = now
        self._num_failures += 1
        self._note_once("start", f"No further reading process can be started now ({error}); waiting until one can.")
        if now - self._failing_since < _START_PATIENCE_S:
            return None
        return MedclipError(
            Reason.OUT_OF_MEMORY,
            f"no reading process could be started for {duration(now - self._failing_since)} ({error}).",
            hint="Free some memory or processes, or allow fewer with --workers, and run again.",
        )

    def _stop(self) -> int | None:
        process, self._process = self._process, None
        self._begun = False
        code = None if process is None else process.stop()
        self._queue.forget(self)
        return code

    def _unexpected(self, name: str) -> MedclipError:
        if name != OUT_OF_MEMORY:
            return MedclipError(Reason.CORRUPT, f"the decoder could not make sense of the file ({name}).")
        limits = [self._memory_bytes, self._budget and self._budget.total_bytes]
        least = min((limit for limit in limits if limit), default=None)
        most = "there is" if least is None else f"the {gigabytes(least)} that one reading process may take"
        return MedclipError(Reason.TOO_LARGE, f"reading this file needs more memory than {most}.")


class _NoProcess(Exception):
    """The system has no process or no memory to spare now."""


class Deadline:
    """A time limit in which only time counts that this process itself was awake.

    Args:
        limit_s: Seconds of the time limit.
        clock: Function that returns seconds.

    It must be asked at least every second: of a longer gap only one second counts.
    """

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._left_s, self._clock = limit_s, clock
        self._asked_at = clock()

    def is_over(self) -> bool:
        """Return whether the time is up."""
        now = self._clock()
        self._left_s -= min(now - self._asked_at, _LONGEST_TICK_S)
        self._asked_at = now
        return self._left_s <= 0


def _late(timeout_s: float) -> MedclipError:
    return MedclipError(
        Reason.TIMEOUT,
        f"reading took longer than {timeout_s:g} s and was stopped.",
        hint="A larger decode_timeout_s below [limits] in medclip.toml, or of medclip.Settings, allows more.",
    )


def _crashed(code: int | None) -> MedclipError:
    if code == -signal.SIGKILL:
        return MedclipError(
            Reason.DECODER_CRASHED,
            "the system killed the process that read this file, three times.",
            hint="The machine may be short of memory; the other files are not affected.",
        )
    return MedclipError(
        Reason.DECODER_CRASHED,
        "the decoder crashed on this file and took its process down, twice.",
        hint="The file is probably damaged; the other files are not affected.",
    )


def _over_budget(budget: MemoryBudget) -> MedclipError:
    return MedclipError(
        Reason.TOO_LARGE,
        f"reading this file alone needs more than {gigabytes(budget.for_reading_bytes)}, what is left for it of the "
        f"{gigabytes(budget.total_bytes)} that all processes may take.",
        hint="--memory, or Settings(memory_bytes=...) from Python, allows more, where the machine has it.",
    )


def _parent_holds(budget: MemoryBudget) -> str:
    return (
        f"Of the {gigabytes(budget.total_bytes)} that all processes may take, this one holds "
        f"{gigabytes(budget.parent_bytes)} by itself; few files are read at a time."
    )
