"""The loop that runs inside a reading process: read a job, do it, write the answer.

Started by `medclip.files.readers.pool` as `python -P -c ...`, not through multiprocessing: that would import the
caller's main script again, which breaks plain scripts and notebooks. Frames are a length and a pickle over its own
pipes (parent and child are one program; nothing from outside is ever unpickled).
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import struct
import sys
from typing import IO, Any

HEADER = struct.Struct(">Q")


def send(stream: IO[bytes], value: object) -> None:
    """Write one frame and flush it."""
    body = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(HEADER.pack(len(body)))
    stream.write(body)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Read one frame.

    Raises:
        EOFError: The other side is gone.
    """
    head = stream.read(HEADER.size)
    if len(head) < HEADER.size:
        raise EOFError
    (size,) = HEADER.unpack(head)
    body = stream.read(size)
    if len(body) < size:
        raise EOFError
    return pickle.loads(body)  # noqa: S301 - written by the other end of our own pipe


def main(memory_bytes: int | None = None) -> None:
    """Serve jobs until the parent closes the pipe.

    Args:
        memory_bytes: Limit of this process's address space, where the system has such limits.

    Standard output and error go to the null device: decoders print to them from C, and what they print may quote the
    file. Ctrl-C is the parent's to handle.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if memory_bytes is not None:
        _limit_memory(memory_bytes)
    jobs = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    # What was bound to the old descriptors keeps pointing at the null device from here on.
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    while True:
        try:
            job = receive(jobs)
        except EOFError:
            return
        send(answers, _answer(job))


def _limit_memory(memory_bytes: int) -> None:
    """Let allocations beyond a limit fail here, instead of having the system kill the largest process."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _answer(job: tuple[Any, tuple[Any, ...]]) -> tuple[bool, object]:
    function, arguments = job
    try:
        return True, function(*arguments)
    except MemoryError:
        return False, "MemoryError"
    except Exception as error:  # any error of a decoder is an answer, not the end of the worker
        from medclip.errors import MedclipError

        return False, error if isinstance(error, MedclipError) else type(error).__name__
