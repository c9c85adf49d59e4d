"""Early rows of a run as small tables, for whoever does not want to wait for the last file."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from medclip.files.tables.write import write_rows
from medclip.runs.ledger.chunk_result import NAMED_FILES, ChunkResult
from medclip.runs.rows import FileRow, ScoreRow, note_of

FOLDER = "parts"
SECONDS = 30.0
"""A part is written when the one before is so old."""
_FIRST_SECONDS = 2.0
"""The first one comes earlier, and the pauses double: whoever began a run wants to see that it does what was meant."""


class Parts:
    """Writes `parts/files-NNNNNN.parquet` and `parts/scores-NNNNNN.parquet` while a run goes on.

    A study that gets more files is in a later part again; the later rows count. `row`, `unit` and `copy_of` are numbers
    of the ledger, since nobody knows yet how many files there are. When the tables are written, the parts go.

    Args:
        folder: The output folder.
        name_of: Function from a path to what stands in its place; the path itself where None.
        written: Function called with the files of each part.
    """

    def __init__(
        self,
        folder: Path,
        name_of: Callable[[str], str] | None = None,
        written: Callable[[Sequence[Path]], None] | None = None,
    ) -> None:
        self._folder, self._name_of, self._written = folder / FOLDER, name_of, written
        self._files: list[FileRow] = []
        self._scores: list[ScoreRow] = []
        self._written_at, self._pause_s = time.monotonic(), min(_FIRST_SECONDS, SECONDS)
        numbers = (re.fullmatch(r"files-(\d{6,})\.parquet", path.name) for path in self._folder.glob("files-*"))
        self._number = max((int(match[1]) for match in numbers if match), default=0)

    def add(self, result: ChunkResult) -> None:
        """Take the rows of a chunk; write a part when it is time.

        Raises:
            MedclipError: As `medclip.files.output.disk_errors`.
        """
        name_of = self._name_of
        files = [row if name_of is None else replace(row, path=name_of(row.path)) for row in result.files]
        files_of: dict[str | None, list[FileRow]] = {}
        for row in sorted(files, key=lambda row: row.path):
            if row.status == "scored":
                files_of.setdefault(row.study, []).append(row)
        self._files += files
        for row in result.scores:
            own = files_of.get(row.study, [])
            text = json.dumps([file.path for file in own[:NAMED_FILES]], ensure_ascii=False)
            note = note_of(file.headers for file in own)
            self._scores.append(replace(row, files=text, num_files=len(own), note=note))
        if time.monotonic() - self._written_at >= self._pause_s:
            self._write()

    def _write(self) -> None:
        self._number += 1
        scores, files = (self._folder / f"{name}-{self._number:06}.parquet" for name in ("scores", "files"))
        write_rows(scores, ScoreRow, self._scores)
        write_rows(files, FileRow, self._files)
        if self._written is not None:
            self._written((scores, files))
        self._files, self._scores, self._written_at = [], [], time.monotonic()
        self._pause_s = min(2 * self._pause_s, SECONDS)

    def remove(self) -> None:
        """Remove them: the tables hold all."""
        shutil.rmtree(self._folder, ignore_errors=True)
