"""Progress that is written down."""

from __future__ import annotations


class Recorded:
    """Keeps what it is told: stages, steps and notes, in order."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int, int]] = []
        self.steps: list[tuple[int, str]] = []
        self.notes: list[str] = []

    def stage(self, name: str, total: int, done: int = 0) -> None:
        """Keep a stage."""
        self.stages.append((name, total, done))

    def step(self, count: int = 1, text: str = "") -> None:
        """Keep a step."""
        self.steps.append((count, text))

    def overall(self, done: int, total: int, studies: int) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Keep a sentence."""
        self.notes.append(text)
