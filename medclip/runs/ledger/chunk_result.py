"""What one chunk adds to a run: committed whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass

from medclip.files.readers.job_queue import Effort
from medclip.runs.ledger.known_files import DONE
from medclip.runs.rows import ExamRow, FileRow, ScoreRow, Thumbnail, UnitRow

NAMED_FILES = 16
"""Files of a study that its scores name; the table of files has them all."""


@dataclass(frozen=True)
class ChunkResult:
    """Everything that one chunk adds to a run. Rows are numbered by the ledger's ids."""

    files: tuple[FileRow, ...]
    scores: tuple[ScoreRow, ...]
    thumbnails: tuple[Thumbnail, ...]
    state: int = DONE
    units: tuple[UnitRow, ...] = ()
    """Vectors, in a run that keeps them."""
    exams: tuple[ExamRow, ...] = ()
    """Of the mammography examinations among the studies, in a run that asks them by their views."""
    efforts: tuple[tuple[int, Effort], ...] = ()
    """What reading each file took, by its number."""
