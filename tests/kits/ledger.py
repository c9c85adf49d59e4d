"""Ledgers filled by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medclip.runs.ledger.ledger import Ledger
from medclip.runs.rows import ChunkResult, ExamRow, FileRow, ScoreRow, Thumbnail
from medclip.sample import FileRef, Stamp


def fill_ledger(
    ledger: Ledger,
    files: Sequence[FileRow],
    scores: Sequence[ScoreRow] = (),
    thumbnails: Sequence[Thumbnail] = (),
    exams: Sequence[ExamRow] = (),
) -> None:
    """List files and commit their rows. Their numbers are those that a run gives them: in the order of paths."""
    refs = [FileRef(Path(row.path), row.path, row.size_bytes, None, Stamp(row.size_bytes, 1, 1)) for row in files]
    ids = {file.name: file.id for file in ledger.register(refs)}
    own = {row.row: ids[row.path] for row in files}
    ledger.commit(
        ChunkResult(
            tuple(replace(row, row=own[row.row]) for row in files),
            tuple(scores),
            tuple(replace(thumbnail, row=own[thumbnail.row]) for thumbnail in thumbnails),
            exams=tuple(row if row.row is None else replace(row, row=own[row.row]) for row in exams),
        )
    )
    ledger.number()
