"""What a run knows of a file before it has its row, and how far the file is."""

from __future__ import annotations

from dataclasses import dataclass

from medclip.errors import Problem
from medclip.files.readers.job_queue import NO_EFFORT, Effort
from medclip.sample import Stamp

"""Raised when columns change."""
LISTED, LOOKED_AT, DONE, DONE_FOR_GOOD = range(4)


@dataclass(frozen=True)
class KnownFile:
    """What the ledger knows of one path."""

    id: int
    name: str
    stamp: Stamp
    window: int
    cut: bool
    """Its folder goes on in other windows."""
    state: int
    sha256: str | None
    problem: Problem | None
    """Why it could not be opened, or what became of the process that looked at it."""


@dataclass(frozen=True)
class Look:
    """What was learnt of a file when it was looked at."""

    id: int
    stamp: Stamp
    sha256: str
    format: str | None
    problem: Problem | None = None
    """Only where its process died or took too long: it is not looked at a second time."""
    effort: Effort = NO_EFFORT
