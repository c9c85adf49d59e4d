"""What a long run tells about itself; the command line draws it, the library stays silent."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Two levels: the files of the whole run, and the steps of the stage that is under way."""

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of `total` steps."""
        ...

    def step(self, count: int = 1) -> None:
        """Count steps of the stage."""
        ...

    def overall(self, done: int, total: int, studies: int) -> None:
        """Tell how many files have their row, of how many, and how many studies have scores."""
        ...


class Silent:
    """Tells nothing."""

    def stage(self, name: str, total: int) -> None:
        """Do nothing."""

    def step(self, count: int = 1) -> None:
        """Do nothing."""

    def overall(self, done: int, total: int, studies: int) -> None:
        """Do nothing."""
