"""Errors of a disk or a network drive that may be gone a second later: the only ones for which a file is read again."""

from __future__ import annotations

import errno
import threading

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
    known: set[int] = set()
    while error is not None and id(error) not in known:
        if isinstance(error, OSError) and error.errno in _PASSING:
            return error
        known.add(id(error))
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
