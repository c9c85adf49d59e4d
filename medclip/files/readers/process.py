"""One reading process and the two pipes to it.

Only the thread that started a process talks to it, waits for it and stops it. So nothing can stop a process for the
sake of a job that it has answered already, and the next job cannot pay for the one before.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from medclip.files.readers.worker import HEADER

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
