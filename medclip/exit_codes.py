"""The exit codes of every command, and the one place that knows which reason leads to which."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType

from medclip.errors import Reason


class ExitCode(IntEnum):
    """How a command ended; a script may rely on it."""

    COMPLETE = 0
    """All was done, and nothing failed."""
    FAULT = 1
    """An error in medclip."""
    REFUSED = 2
    """Wrong use, or an input, a model or an output that is refused."""
    SOME_FAILED = 3
    """All was done, and some files, methods or checks failed."""
    INCOMPLETE = 4
    """Disk, memory or standard output did not suffice, or a server is away; the same command goes on after that."""
    BUSY = 5
    """Another run is at work in this place."""
    RED_BOX = 6
    """An audit was done and found something that nobody should overlook: it shares something with training, a score
    follows the source of the images, or a requirement is not met."""
    INTERRUPTED = 130
    """Stopped by Ctrl-C, SIGTERM or SIGHUP."""
    PIPE_CLOSED = 141
    """Whoever read the output, such as `head`, went away; the code that a shell has for this."""


def after(counts: Mapping[str, int]) -> ExitCode:
    """Return how a command ends whose things are counted by status: done, skipped, failed."""
    return ExitCode.SOME_FAILED if counts.get("failed") else ExitCode.COMPLETE


OF_REASON: Mapping[Reason, ExitCode] = MappingProxyType(
    {
        Reason.DISK_FULL: ExitCode.INCOMPLETE,
        Reason.WRITE_ERROR: ExitCode.INCOMPLETE,
        Reason.UNREACHABLE: ExitCode.INCOMPLETE,
        Reason.OUT_OF_MEMORY: ExitCode.INCOMPLETE,
        Reason.BUSY: ExitCode.BUSY,
    }
)
"""Reasons that are no refusal."""


def exit_code(reason: Reason) -> ExitCode:
    """Return the code of a command that ends with this reason.

    Example:
        >>> exit_code(Reason.DISK_FULL)
        <ExitCode.INCOMPLETE: 4>
        >>> exit_code(Reason.TABLE_INVALID)
        <ExitCode.REFUSED: 2>
    """
    return OF_REASON.get(reason, ExitCode.REFUSED)
