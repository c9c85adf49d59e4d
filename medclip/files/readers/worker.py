"""The loop that runs inside a reading process: read a job, do it, write the answer.

Started by `medclip.files.readers.serving` as `python -P -c ...`, not through multiprocessing: that would import the
caller's main script again, which breaks plain scripts and notebooks. Frames are a length and a pickle over its own
pipes (parent and child are one program; nothing from outside is ever unpickled).
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import signal
import struct
import sys
import threading
import time
from typing import IO

# Errors of a disk or a network drive that may be gone a second later: the only ones for which a file is read again.

_NAMES = (
    *("EIO", "ESTALE", "ETIMEDOUT", "EREMOTEIO", "ENOLINK", "ECOMM", "EPROTO"),
    *("ECONNRESET", "ECONNABORTED", "ECONNREFUSED", "ENOTCONN", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH"),
)
_PASSING = frozenset(getattr(errno, name) for name in _NAMES if hasattr(errno, name))
PAUSES_S = (0.5, 2.0, 5.0)
"""Before each further reading of a file."""
_GIVEN_UP = 4
"""After so many files in a row that were read again for nothing the drive is gone: none is waited for any more."""


def passing_error(error: BaseException | None) -> OSError | None:
    """Return the error of a drive that another one was made of, if any.

    Decoders know of damaged files only, and call one what a drive did not deliver.

    Args:
        error: Error that reading ended with; what it was raised from, or while, counts also where it is not shown.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno in _PASSING:
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


class Patience:
    """How long the files of one run are waited for, all threads together.

    A drive that is gone would cost the pauses of every file on it; after some files the others are read once only,
    until one can be read again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_given_up = 0

    def pause_s(self, num_retries: int) -> float | None:
        """Return after how many seconds a file is read again that was so often already; None for never."""
        with self._lock:
            if num_retries < len(PAUSES_S) and self._num_given_up < _GIVEN_UP:
                return PAUSES_S[num_retries]
            self._num_given_up += 1
            return None

    def succeeded(self) -> None:
        """Note that a file could be read."""
        with self._lock:
            self._num_given_up = 0


HEADER = struct.Struct(">Q")
OUT_OF_MEMORY = "MemoryError"
PASSING = None
"""In the place of whether an answer is good: it is not, and may be in a moment."""
_OOM_SCORE = 800
_PR_SET_PDEATHSIG = 1
_LOOK_S = 0.5


def frame(value: object) -> bytes:
    """Return a value as a frame."""
    body = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    return HEADER.pack(len(body)) + body


def main(parent: int, memory_bytes: int | None = None, data_bytes: int | None = None) -> None:
    """Write an empty frame, then serve jobs until the parent closes the pipe or is gone.

    Args:
        parent: The process that started this one.
        memory_bytes: Limit of this process's address space, where the system has such limits.
        data_bytes: Limit of the memory that this process may write to; Linux only.

    Standard output and error go to the null device: decoders print to them from C, and what they print may quote the
    file. Ctrl-C is the parent's to handle.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with(parent)
    _die_first()
    _limit_memory(memory_bytes, data_bytes)
    jobs = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    # What was bound to the old descriptors keeps pointing at the null device from here on.
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    answers.write(HEADER.pack(0))
    while (job := receive(jobs)) is not None:
        answer = memoryview(_answer(job))
        while answer:
            answer = answer[answers.write(answer) :]


def receive(stream: IO[bytes]) -> bytes | None:
    """Read the body of one frame; None where the other side is gone."""
    head = stream.read(HEADER.size)
    if len(head) < HEADER.size:
        return None
    (size,) = HEADER.unpack(head)
    body = stream.read(size)
    return body if len(body) == size else None


def _answer(job: bytes) -> bytes:
    try:
        function, arguments = pickle.loads(job)  # noqa: S301 - written by the other end of our own pipe
        return frame((True, function(*arguments)))
    except MemoryError:
        return frame((False, OUT_OF_MEMORY))
    except Exception as error:  # any error of a decoder is an answer, not the end of the worker
        from medclip.errors import MedclipError, Reason

        if (passing := passing_error(error)) is not None:
            text = f"the file could not be read ({passing.strerror or type(passing).__name__})."
            return frame((PASSING, MedclipError(Reason.READ_ERROR, text)))
        return frame((False, error if isinstance(error, MedclipError) else type(error).__name__))


def _die_with(parent: int) -> None:
    """End this process when its parent ends, however that ends and whatever is done here at that time."""
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        # The system's own signal also reaches a decoder that is in C. It comes when the *thread* that started this
        # process ends; that is the one that waits for the answers, and it stops this process before it goes.
        if ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0:
            if os.getppid() != parent:  # it was gone before the signal was asked for
                os._exit(1)
            return
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    """Do the same where the system has no such signal: a process without its parent has another one."""
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(1)


def _die_first() -> None:
    """Have a system that is short of memory kill this process, which costs one repeated job, and not the parent."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/oom_score_adj", "r+") as file:
        if int(file.read()) < _OOM_SCORE:
            file.seek(0)
            file.write(str(_OOM_SCORE))


def _limit_memory(memory_bytes: int | None, data_bytes: int | None) -> None:
    """Let allocations beyond a limit fail here, instead of having the system kill the largest process."""
    import resource

    limits = [(resource.RLIMIT_AS, memory_bytes)]
    if sys.platform == "linux":
        limits.append((resource.RLIMIT_DATA, data_bytes))
    for kind, limit in limits:
        if limit is not None:
            _, hard = resource.getrlimit(kind)
            soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(kind, (soft, hard))
