"""How far a long run is; the command line draws it, the library stays silent."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Two levels: the files of the whole run, and the steps of the stage that is under way."""

    def stage(self, name: str, total: int, done: int = 0) -> None:
        """Begin a stage of `total` steps, of which `done` were done by a run before."""
        ...

    def step(self, count: int = 1, text: str = "") -> None:
        """Count steps of the stage; `text` stands beside them, such as the loss, until there is another."""
        ...

    def overall(self, done: int, total: int, studies: int) -> None:
        """Report how many files have their row, of how many, and how many studies have scores.

        Where more files came to light than the stage began with, its total grows to theirs.
        """
        ...

    def note(self, text: str) -> None:
        """Show a sentence that stays."""
        ...


class Silent:
    """Shows nothing."""

    def stage(self, name: str, total: int, done: int = 0) -> None:
        """Do nothing."""

    def step(self, count: int = 1, text: str = "") -> None:
        """Do nothing."""

    def overall(self, done: int, total: int, studies: int) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""
