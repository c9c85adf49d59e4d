"""Which errors may be gone in a moment, and how long files are waited for."""

from __future__ import annotations

import errno
import os

import pytest

from medclip.errors import MedclipError, Reason
from medclip.files.readers.worker import PAUSES_S, Patience, passing_error


def _raised(error: Exception, *, hidden: bool) -> Exception:
    try:
        try:
            raise error
        except Exception:
            raised = MedclipError(Reason.CORRUPT, "the image is damaged.")
            if hidden:
                raise raised from None
            raise raised from error
    except MedclipError as caught:
        return caught


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.EHOSTUNREACH])
@pytest.mark.parametrize("hidden", [False, True])
def test_an_error_of_a_drive_is_found_below_what_a_decoder_made_of_it(number: int, hidden: bool) -> None:
    error = OSError(number, os.strerror(number))
    assert passing_error(error) is error
    assert passing_error(_raised(error, hidden=hidden)) is error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EACCES, "denied"),
        OSError(errno.ENOENT, "gone"),
        OSError("cannot identify image file"),
        ValueError("no pixels"),
        MemoryError(),
    ],
)
def test_an_error_that_stays_is_none_of_them(error: Exception) -> None:
    assert passing_error(error) is None
    assert passing_error(_raised(error, hidden=True)) is None
    assert passing_error(None) is None


def test_errors_that_refer_to_each_other_are_looked_through_once() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__context__, second.__context__ = second, first
    assert passing_error(first) is None


def test_pauses_grow_and_end_and_files_in_vain_end_them_for_all_until_one_is_read() -> None:
    patience = Patience()
    assert [patience.pause_s(number) for number in range(len(PAUSES_S) + 1)] == [*PAUSES_S, None]
    assert list(PAUSES_S) == sorted(PAUSES_S)
    for _ in range(3):
        assert patience.pause_s(len(PAUSES_S)) is None
    assert patience.pause_s(0) is None
    patience.succeeded()
    assert patience.pause_s(0) == PAUSES_S[0]
