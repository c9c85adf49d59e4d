"""What a file is once its neighbours are taken into account."""

from __future__ import annotations

from dataclasses import dataclass

from medclip.errors import Problem
from medclip.files.recognise.sniff import Format


@dataclass(frozen=True)
class Placed:
    """A file with its neighbours taken into account."""

    format: Format
    parts: tuple[str, ...] = ()
    """Names, in the same folder, of the files that are read with this one."""
    problem: Problem | None = None
