"""Whoever takes the rows of a run as they are committed, such as a writer of results for other systems."""

from __future__ import annotations

from typing import Protocol

from medclip.runs.ledger.chunk_result import ChunkResult
from medclip.runs.ledger.ledger import Ledger


class RowSink(Protocol):
    """Takes rows while a run goes on. What it does not finish, because the run was stopped, a later call has to."""

    def begin(self, ledger: Ledger) -> None:
        """Begin: chunks are computed from now on.

        Raises:
            MedclipError: For a place that cannot be written to.
        """
        ...

    def take(self, ledger: Ledger, result: ChunkResult) -> None:
        """Take what was committed, without keeping the run waiting."""
        ...

    def end(self, ledger: Ledger) -> None:
        """Finish what was taken: all chunks are committed, and the tables are written next."""
        ...

    def close(self) -> None:
        """Stop, whatever is left: called at every end of a run."""
        ...


class NoSink:
    """Takes nothing."""

    def begin(self, ledger: Ledger) -> None:
        """Do nothing."""

    def take(self, ledger: Ledger, result: ChunkResult) -> None:
        """Do nothing."""

    def end(self, ledger: Ledger) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
