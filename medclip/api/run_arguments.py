"""Arguments that the verbs over files share: paths, reasons of failure, a folder that nobody named."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path

from medclip.errors import MedclipError, Reason, Status, did_you_mean


def failed_for(reason: str | None) -> str | None:
    """Return the reason of the files to try again; "" for all.

    Raises:
        MedclipError: WRONG_USE for a reason that no file fails for.
    """
    known = [str(reason) for reason in Reason if reason.status is Status.FAILED]
    if reason is not None and reason != "all" and reason not in known:
        raise MedclipError(
            Reason.WRONG_USE,
            f"no file fails for the reason {reason!r}.",
            hint=did_you_mean(reason, ["all", *known], "Reasons are"),
        )
    return "" if reason == "all" else reason


def path_of(value: object, what: str) -> Path:
    """Return a path that a caller named.

    Args:
        value: What was given.
        what: What it should be, for the sentence.

    Raises:
        MedclipError: WRONG_USE for what is no path.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise MedclipError(Reason.WRONG_USE, f"{what} is named by a path, not by a {type(value).__name__}.")
    return Path(value)


class TemporaryFolder:
    """A folder that goes when this object does, without the warning of tempfile.TemporaryDirectory.

    Args:
        verb: Whose results it holds.
    """

    def __init__(self, verb: str) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=f"medclip-{verb}-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
