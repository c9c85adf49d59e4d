"""Write what chunks bring and how fast, and put numbers or hashes in the place of names when all is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import count
from typing import Any

from medclip.files.tables.write import batches
from medclip.runs.ledger.database import BY_FILE, BY_STUDY, COMPUTED, NAMED, PLACED, Database, column_name
from medclip.runs.ledger.input_rows import ADD_EFFORT, effort_values
from medclip.runs.rows import (
    DONE_FOR_GOOD,
    ChunkResult,
    ExamRow,
    FileRow,
    MapImage,
    MapRow,
    ScoreRow,
    Thumbnail,
    UnitRow,
)

PACE = "pace"
"""Under which a ledger remembers it."""
EXPECTED = "expected"
"""How many files there are in all, as far as that is known."""
HALVED = "halved"
"""How many batches the memory did not hold, so that halves of them were computed."""
_EVERY_S = 5.0
_SPAN_S = 600.0
"""Earlier moments say little of how fast it is now: one folder has slices of a CT, the next one whole slides."""


class PaceKeeper:
    """Notes moments of the present call while a run goes on, with how many files had their row by then."""

    def __init__(self) -> None:
        self._num_files = 0
        self._moments: list[tuple[float, int]] = [(time.time(), 0)]

    def commit(self, num_files: int) -> list[tuple[float, int]] | None:
        """Count files that have their row now; return what is to be remembered, None where that can wait."""
        self._num_files += num_files
        now = time.time()
        if len(self._moments) > 1 and 0 <= now - self._moments[-1][0] < _EVERY_S:
            return None
        self._moments = [
            *(moment for moment in self._moments if 0 <= now - moment[0] < _SPAN_S),
            (now, self._num_files),
        ]
        return self._moments


class ResultWriter:
    """The half of a ledger that writes results."""

    _db: Database
    _pace: PaceKeeper
    settled: frozenset[int]
    num_halved = 0
    """Batches that were halved for want of memory since the last commit."""
    expects: Callable[[], int | None] = staticmethod(lambda: None)
    """Returns how many files the run is over, once somebody knows."""

    def commit(self, result: ChunkResult) -> tuple[int, int]:
        """Write one chunk in the place of what there was of its files and studies: all of it or nothing.

        Returns:
            By how many files and scored studies the run has grown.
        """
        if self.settled:  # what is gone by now has no row
            result = replace(
                result,
                files=tuple(row for row in result.files if row.row not in self.settled),
                thumbnails=tuple(row for row in result.thumbnails if row.row not in self.settled),
                units=tuple(row for row in result.units if row.row not in self.settled),
                maps=tuple(row for row in result.maps if row.row not in self.settled),
                map_images=tuple(row for row in result.map_images if row.row not in self.settled),
            )
        ids = [row.row for row in result.files]
        with self._db.transaction():
            old: dict[str | None, bool] = {}
            num_old = 0
            for number in ids:
                for study, status in self._db.execute("SELECT study, status FROM files WHERE row = ?", (number,)):
                    num_old += 1
                    old[study] = old.get(study, False) or status == "scored"
            for table in BY_STUDY:
                self._db.executemany(f"DELETE FROM {table} WHERE study = ?", [(study,) for study in old])  # noqa: S608
            for table in BY_FILE:
                self._db.executemany(f"DELETE FROM {table} WHERE row = ?", [(number,) for number in ids])  # noqa: S608
            self._insert("files", FileRow, result.files)
            self._insert("scores", ScoreRow, result.scores)
            self._insert("exams", ExamRow, result.exams)
            self._insert("thumbnails", Thumbnail, result.thumbnails)
            self._insert("units", UnitRow, result.units)
            if result.maps:
                self._insert("maps", MapRow, result.maps)
                self._insert("map_images", MapImage, result.map_images)
            self._db.executemany("UPDATE inputs SET state = ? WHERE id = ?", [(result.state, number) for number in ids])
            self._db.executemany(
                f"UPDATE inputs SET {ADD_EFFORT} WHERE id = ?",  # noqa: S608 - names of our own columns
                [(*effort_values(effort), number) for number, effort in result.efforts],
            )
            if self.num_halved:
                self._db.keep({HALVED: (self._db.get(HALVED) or 0) + self.num_halved})
                self.num_halved = 0
            if (moments := self._pace.commit(len(ids))) is not None:
                self._db.keep({PACE: moments, EXPECTED: self.expects()})
        new = {row.study for row in result.files if row.status == "scored"}
        return len(ids) - num_old, len(new) - sum(old.values())

    def fill(
        self,
        files: Iterable[FileRow],
        scores: Iterable[ScoreRow | ExamRow],
        thumbnails: Iterable[Thumbnail],
        remembered: Mapping[str, Any],
    ) -> None:
        """Write a whole run that was made of another one's results, in the place of what there is: all or nothing.

        Args:
            files: Rows of files by their numbers, which stay; read to the end before `scores`, and both some at a time.
            scores: Scores of each study in their order, and those of its views among them.
            thumbnails: Thumbnails by the numbers of files.
            remembered: Facts that the ledger of that run knew: whether names are hashed, and the like.
        """
        with self._db.transaction():
            for table in (*BY_FILE, *BY_STUDY, "inputs", "numbers"):
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - names of our own tables
            self._insert("files", FileRow, files)
            self._db.execute(
                "INSERT INTO inputs (id, name, size, mtime, inode, window, cut, sha256, format, state) "
                "SELECT row, path, size_bytes, 0, 0, 0, 0, sha256, format, ? FROM files",
                (DONE_FOR_GOOD,),
            )
            self._db.execute("INSERT INTO numbers SELECT id, id FROM inputs")
            places = count()
            for some in batches(scores):
                self._insert("scores", ScoreRow, (row for row in some if isinstance(row, ScoreRow)), places)
                self._insert("exams", ExamRow, (row for row in some if isinstance(row, ExamRow)), places)
            self._insert("thumbnails", Thumbnail, thumbnails)
            self._db.keep(remembered)

    def number(self) -> None:
        """Number the files by their names, from 1. The rows that are read from now on have these numbers."""
        if self._db.get("hashed"):  # they were numbered while they had their names
            return
        with self._db.transaction():
            self._db.execute("DELETE FROM numbers")
            self._db.execute("INSERT INTO numbers SELECT id, row_number() OVER (ORDER BY name) FROM inputs")

    def hash_names(self, hashed: Callable[[str], str]) -> None:
        """Write a hash in the place of every file's name, so that no name is left in the ledger."""
        self._db.create_function("hashed", 1, hashed, deterministic=True)
        with self._db.transaction():
            self._db.execute("UPDATE inputs SET name = hashed(name)")
            self._db.execute("UPDATE files SET path = hashed(path)")
            self._db.keep({"hashed": True})
        self._db.forget()

    def name_again(self, names: Iterable[tuple[str, str]]) -> None:
        """Write names in the place of their hashes again."""
        with self._db.transaction():
            for name, hashed in names:
                self._db.execute("UPDATE inputs SET name = ? WHERE name = ?", (name, hashed))
                self._db.execute("UPDATE files SET path = ? WHERE path = ?", (name, hashed))
            self._db.keep({"hashed": False})

    def keep_thumbnails(self, studies: Iterable[str]) -> None:
        """Remove the thumbnails of all other studies."""
        with self._db.transaction():
            self._db.execute("CREATE TEMP TABLE IF NOT EXISTS shown (study TEXT PRIMARY KEY)")
            self._db.execute("DELETE FROM shown")
            self._db.executemany("INSERT OR IGNORE INTO shown VALUES (?)", [(study,) for study in studies])
            self._db.execute(
                "DELETE FROM thumbnails WHERE row NOT IN "
                "(SELECT row FROM files WHERE study IN (SELECT study FROM shown))"
            )

    def remove_rows(self, tables: Sequence[str] | None) -> None:
        """Remove all rows of some tables, and of all but what the run is where there are none; the file shrinks."""
        with self._db.transaction():
            for table in (*BY_FILE, *BY_STUDY, "inputs", "numbers") if tables is None else tables:
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - names of our own tables
        self._db.forget()

    def _insert(
        self,
        table: str,
        row_type: type,
        rows: Iterable[FileRow | ScoreRow | ExamRow | Thumbnail | UnitRow | MapRow | MapImage],
        places: Iterator[int] | None = None,
    ) -> None:
        has_place = table in PLACED
        left_out = {"scores": COMPUTED, "exams": NAMED, "maps": NAMED}.get(table, ())
        names = [field.name for field in fields(row_type) if field.name not in left_out]
        columns = ["place"] * has_place + [column_name(name) for name in names]
        marks = ", ".join("?" for _ in columns)
        statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 - names of our own fields
        numbered = ((next(places), row) for row in rows) if places is not None else enumerate(rows)
        values = ([place] * has_place + [getattr(row, name) for name in names] for place, row in numbered)
        self._db.executemany(statement, values)
