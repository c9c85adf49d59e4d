"""Turn a finished ledger into its tables and run.json: the same ledger gives the same bytes.

Early rows stand in small tables of their own until then, for whoever does not want to wait for the last file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from medclip.embeddings.write_embeddings import NOTE
from medclip.embeddings.write_embeddings import TABLES as EMBEDDING_TABLES
from medclip.files.output import disk_errors, write_file
from medclip.files.tables.write import write_as_csv, write_rows
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.rows import MAPS, NAMED_FILES, ChunkResult, ExamRow, FileRow, MapRow, ScoreRow, note_of

FILES = "files.parquet"
SCORES = "scores.parquet"
EXAM_SCORES = "exam_scores.parquet"
"""Only of a run that asks mammography examinations by their views."""
MAP_TABLE = "maps.parquet"
"""Only of a run that asks where something is; the maps are in the folder `MAPS`."""
CSV_OF = {FILES: "files.csv", SCORES: "scores.csv", EXAM_SCORES: "exam_scores.csv", MAP_TABLE: "maps.csv"}
"""The same tables for spreadsheets, where they are asked for."""
RUN = "run.json"
REPORT = "report.html"
SEARCH = "report-search.html"
REPORT_IMAGES = "report-images"
"""Folder of the images of that page."""
EMBED = "embed"
"""What the identity of a run of `medclip embed` names as its command."""
EMBEDDED = "embedded"
"""Status of a file in a folder of embeddings, where a scoring run has "scored"."""
_TABLES = (FILES, SCORES, EXAM_SCORES, MAP_TABLE)
_PAGE = re.compile(r"report(-([1-9]\d*|search))?\.html")


def write_results(ledger: Ledger, folder: Path, run: dict[str, Any]) -> None:
    """Write the tables and run.json, each complete or not at all.

    Args:
        ledger: The run's ledger, all chunks committed and its files numbered.
        folder: The output folder.
        run: Facts of run.json besides the counts: version, pack, options. No path, no time.
    """
    with disk_errors(folder):
        (folder / RUN).unlink(missing_ok=True)  # until it is there again, new tables may stand beside old ones
        for name in CSV_OF.values():  # of the tables before; whoever asks for them gets new ones
            (folder / name).unlink(missing_ok=True)
    write_rows(folder / FILES, FileRow, ledger.files())
    write_rows(folder / SCORES, ScoreRow, ledger.scores())
    if run["options"].get("exam"):
        write_rows(folder / EXAM_SCORES, ExamRow, ledger.exams())
    if run["options"].get("maps"):
        _write_maps(ledger, folder)
    write_run(folder, run, ledger.counts())


def _write_maps(ledger: Ledger, folder: Path) -> None:
    """Write the table of maps, and each map as a PNG."""
    with disk_errors(folder):
        shutil.rmtree(folder / MAPS, ignore_errors=True)
    for row, png, _ in ledger.map_images():
        write_file(folder / row.map, png)
    write_rows(folder / MAP_TABLE, MapRow, ledger.maps())


def write_csv_tables(folder: Path) -> None:
    """Write each table of a folder as CSV beside it, unless it is there."""
    for table, name in CSV_OF.items():
        if (folder / table).exists() and not (folder / name).exists():
            write_as_csv(folder / name, folder / table)


def write_run(folder: Path, run: dict[str, Any], counts: dict[str, int]) -> None:
    """Write run.json, as the last of all."""
    text = json.dumps({**run, "counts": counts}, indent=2, sort_keys=True, ensure_ascii=False)
    write_file(folder / RUN, f"{text}\n")


def embedded_counts(counts: dict[str, int]) -> dict[str, int]:
    """Return the counts of a run as those of one that embeds."""
    return {EMBEDDED if name == "scored" else name: number for name, number in counts.items()}


def hashes_of(folder: Path) -> dict[str, str]:
    """Hash what a run has written besides its ledger, by name; what is not there is left out."""
    hashes = {}
    for name in (*_TABLES, *CSV_OF.values(), RUN, NOTE, *EMBEDDING_TABLES, *report_files(folder)):
        with suppress(OSError), (folder / name).open("rb") as file:
            hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def output_files(folder: Path) -> list[str]:
    """Return what a run has written besides its ledger and results for other systems, by relative name.

    Those that say that the others are complete come last: run.json is the last of all.
    """
    below = (path for name in (REPORT_IMAGES, MAPS) for path in (folder / name).rglob("*"))
    images = sorted(path.relative_to(folder).as_posix() for path in below)
    names = (*_TABLES, *CSV_OF.values(), *EMBEDDING_TABLES, *images, *report_files(folder), NOTE, RUN)
    return [name for name in names if (folder / name).is_file()]


def page_name(page: int) -> str:
    """Return the file of a page of the report, from 1."""
    return REPORT if page == 1 else f"report-{page}.html"


def report_files(folder: Path) -> list[str]:
    """Return the files of a report that are in a folder: its pages, and the one that searches them."""
    return sorted(name for name in os.listdir(folder) if _PAGE.fullmatch(name))


PARTS = "parts"
PART_SECONDS = 30.0
"""A part is written when the one before is so old."""
_FIRST_PART_SECONDS = 2.0
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
        self._folder, self._name_of, self._written = folder / PARTS, name_of, written
        self._files: list[FileRow] = []
        self._scores: list[ScoreRow] = []
        self._written_at, self._pause_s = time.monotonic(), min(_FIRST_PART_SECONDS, PART_SECONDS)
        numbers = (re.fullmatch(r"files-(\d{6,})\.parquet", path.name) for path in self._folder.glob("files-*"))
        self._number = max((int(match[1]) for match in numbers if match), default=0)

    def add(self, result: ChunkResult) -> None:
        """Take the rows of a chunk; write a part when it is time."""
        name_of = self._name_of
        files = [row if name_of is None else replace(row, path=name_of(row.path)) for row in result.files]
        files_of: dict[str | None, list[FileRow]] = {}
        for row in sorted(files, key=lambda row: row.path):
            if row.status == "scored":
                files_of.setdefault(row.study, []).append(row)
        self._files += files
        for row in result.scores:
            of_study = files_of.get(row.study, [])
            text = json.dumps([file.path for file in of_study[:NAMED_FILES]], ensure_ascii=False)
            note = note_of(file.headers for file in of_study)
            self._scores.append(replace(row, files=text, num_files=len(of_study), note=note))
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
        self._pause_s = min(2 * self._pause_s, PART_SECONDS)

    def remove(self) -> None:
        """Remove them: the tables hold all."""
        shutil.rmtree(self._folder, ignore_errors=True)
