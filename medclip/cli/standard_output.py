"""Standard output as the commands write it: full is one sentence, closed is quiet; nothing is left for Python's end."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

from medclip.errors import MedclipError, Reason


class PipeClosed(BaseException):
    """Whoever read the output is gone. No `Exception`: nothing on the way may take it for a fault of a file."""


@contextlib.contextmanager
def checked_output() -> Iterator[None]:
    """Watch standard output while a command runs, and bring what it wrote to its place at the end.

    Raises:
        MedclipError: DISK_FULL or WRITE_ERROR where it cannot be written.
        PipeClosed: Where its reader is gone.
    """
    before = sys.stdout
    # Closed by whoever started the command: nobody listens. What is opened next must not take its descriptor.
    stream = open(os.devnull, "w", encoding="utf-8") if before is None else before  # noqa: SIM115
    sys.stdout = checked = cast("TextIO", _Checked(stream))
    try:
        yield
        checked.flush()
    finally:
        if sys.stdout is checked:
            sys.stdout = before
        if before is None:
            stream.close()


class _Checked:
    """A stream whose first failure to write has a sentence, which is raised from then on: typer swallows some."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._failure: MedclipError | PipeClosed | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write."""
        with self._failures():
            return self._stream.write(text)

    def flush(self) -> None:
        """Flush."""
        with self._failures():
            self._stream.flush()

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        if self._failure is not None:
            raise self._failure
        try:
            yield
        except OSError as error:
            self._drop_the_rest()
            self._failure = PipeClosed() if isinstance(error, BrokenPipeError) else _failure(error)
            raise self._failure from None

    def _drop_the_rest(self) -> None:
        """Lead the descriptor to the null device: Python flushes at its end what is left, and would fail."""
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


def _failure(error: OSError) -> MedclipError:
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return MedclipError(
        Reason.DISK_FULL if is_full else Reason.WRITE_ERROR,
        f"this cannot be written: {'the disk is full' if is_full else error.strerror}.",
        where="standard output",
        hint="What was written to files is kept.",
    )
