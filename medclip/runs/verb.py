"""What a verb makes of a run over files: `score` answers questions about their units, `embed` keeps their vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from medclip.runs.ledger.ledger import Ledger
from medclip.runs.planning.plan import Chunk
from medclip.runs.rows import ChunkResult
from medclip.runs.units.chunk import Answers, Context
from medclip.sample import Modality


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


Work = Callable[[Context, Ledger, Iterator[Chunk], Callable[[ChunkResult], None]], None]
"""Context, ledger, chunks, and what commits the rows of each."""


@dataclass(frozen=True)
class Verb:
    """What a verb makes of a run."""

    stage: str
    """What progress calls the work."""
    identity: Mapping[str, Any]
    """What makes two calls the same run, besides files, options and pack: the question."""
    answers: Callable[[Any], Answers] | None
    """From the loaded model to what is made of units; None where `work` makes it."""
    write: Callable[[Ledger, dict[str, Any]], None]
    """Writes the results of a complete ledger whose files are numbered; it is given what run.json says."""
    begin: Callable[[], None] | None = None
    """Called once the folder is this run's, before anything is read."""
    compute: Callable[[], None] | None = None
    """Called before the first chunk is computed: results that are there are no longer those of the whole run."""
    finish: Callable[[Ledger], None] | None = None
    """Called before the run counts as finished, also where nothing is computed again, e.g. to write a report."""
    shows_parts: bool = True
    """Early rows are written as small tables."""
    keeps_looks: bool = False
    """It is kept what images are known again by."""
    notes: tuple[str, ...] = ()
    """What should be known of the question; shown at once, and kept for those who read the results."""
    only: Modality | None = None
    """The one modality that the pack knows, if so: single images are taken for it that nobody names."""
    work: Work | None = None
    """Works through the chunks in the place of `run_chunks`."""
    lacks: Callable[[Ledger], Iterable[int]] | None = None
    """Returns the files whose results are gone, by their ids: they are read again."""
    sink: RowSink = field(default_factory=NoSink)
    """Takes rows as they are committed."""
    beside: tuple[str, ...] = ()
    """Names by which an output folder is known for one where this run may be, though it holds none yet."""
