"""The log of a run as JSON lines: events, counts and reasons, for programs that watch many runs.

It never holds a path, a name of a file, a sentence about one, or an identifier: which files failed is in files.parquet.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.access import file_modes
from medclip.files.output import check_place, disk_errors, make_folder

_START = b'{"time": '
"""Of each line, and so of each file."""


class EventLog:
    """Appends one line for each event; each is written at once, and whole.

    What cannot be written later on, since the disk is full, is dropped: a log must not cost a run.

    Args:
        path: The file, which is made or goes on; a device or a pipe, such as /dev/stderr, will do, too.
        now: The time of an event.

    Raises:
        MedclipError: WRONG_USE for a file that holds something else; as `medclip.files.output.disk_errors`.
    """

    def __init__(self, path: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._run = secrets.token_hex(4)
        if not os.path.lexists(path):
            check_place(path)
        _refuse_other(path)
        with disk_errors(path):
            make_folder(path.parent)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, file_modes().file)

    def write(self, event: str, **values: Any) -> None:
        """Append an event; `run` tells apart those of several calls that one file holds."""
        time = self._now().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps({"time": time, "event": event, "run": self._run, **values})
        with suppress(OSError):
            os.write(self._descriptor, f"{line}\n".encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def _refuse_other(path: Path) -> None:
    """Refuse to append to a file that holds anything but events: an image, say, that was named by mistake."""
    if not path.is_file():
        return
    with disk_errors(path), path.open("rb") as file:
        start = file.read(len(_START))
    if start and start != _START:
        raise MedclipError(
            Reason.WRONG_USE,
            "this file is no log of medclip; nothing was written to it.",
            where=path,
            hint="Name a new file.",
        )
