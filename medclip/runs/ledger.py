"""The ledger: one SQLite file per run that remembers every file and every finished study, so that a killed run goes on.

What is known of a file is written as it comes: its name, size, time and inode when it is listed, its hash and format
when it was looked at. A chunk's rows, scores and thumbnails are committed in one transaction; tables and report are
made from the ledger alone. It holds no header value, no identifier that is not hashed, and no time of the run.

One process writes, and any number may read meanwhile (SQLite's write-ahead log). A file system without shared memory
(some network drives) cannot do that; there the ledger is locked while a run writes to it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import count
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Problem, Reason
from medclip.files.discover import LEDGER
from medclip.files.locks import lock_folder
from medclip.files.output import disk_error, in_use
from medclip.files.tables.write import batches
from medclip.runs.rows import ExamRow, FileRow, ScoreRow, Thumbnail, UnitRow, note_of
from medclip.sample import FileRef, Stamp

FILE_NAME = LEDGER
NAMED_FILES = 16
"""Files of a study that its scores name; the table of files has them all."""
_ELSEWHERE = "Name another folder."
_NO_ROOM_BYTES = 1_000_000
_PAGES_BYTES = 1 << 16
"""SQLite writes in pages; a file that a limit stopped is this much smaller than the limit at most."""
"""Whoever only asks whether a folder is locked has it for an instant."""
_AGAIN_FILES = 512
"""Files of one window that are looked at once more."""
_FORMAT = 9
"""Raised when columns change."""
LISTED, LOOKED_AT, DONE, DONE_FOR_GOOD = range(4)
"""How far a file is. Done for good are the files of a study that had to wait for all of its files."""
_LATE = (
    "tie IN (SELECT tie FROM inputs WHERE tie IS NOT NULL "  # one NULL in the list, and nothing is "NOT IN" it
    "GROUP BY tie HAVING COUNT(DISTINCT window) > 1 OR MAX(waits))"
)
"""Files whose study has files in several windows: it is scored when all files are known."""


@dataclass(frozen=True)
class KnownFile:
    """What the ledger knows of one path."""

    id: int
    name: str
    stamp: Stamp
    window: int
    cut: bool
    """Its folder goes on in other windows."""
    state: int
    sha256: str | None
    problem: Problem | None
    """Why it could not be opened, or what became of the process that looked at it."""


@dataclass(frozen=True)
class Look:
    """What was learnt of a file when it was looked at."""

    id: int
    stamp: Stamp
    sha256: str
    format: str | None
    problem: Problem | None = None
    """Only where its process died or took too long: it is not looked at a second time."""


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


class Ledger:
    """The open ledger of one output folder. One process writes; a second one is refused.

    Args:
        folder: The output folder; it must exist.
        create: Make the ledger where there is none. False opens for reading what another call wrote or writes.

    Raises:
        MedclipError: BUSY when another process writes to it; OUTPUT_IN_USE when it is not a ledger; DISK_FULL.
    """

    def __init__(self, folder: Path, *, create: bool = True) -> None:
        self._path, self._lock = folder / FILE_NAME, None
        if not create and not self._path.exists():
            raise MedclipError(Reason.MISSING_FILE, "there is no ledger of a scoring run here.", where=folder)
        if create:
            self._lock = lock_folder(folder)
        try:
            if create:  # its owner's alone; the write-ahead log gets the same mode
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            self._db = sqlite3.connect(self._path, timeout=5.0, isolation_level=None, check_same_thread=False)
        except (sqlite3.Error, OSError) as e:
            self._unlock()
            error = e if isinstance(e, OSError) else OSError(errno.EACCES, str(e))
            raise disk_error(error, folder) or e from e
        try:
            with _ledger_errors(folder):
                self._refuse_foreign(folder, create)
                if create:
                    self._db.execute("PRAGMA journal_mode=WAL")
                    self._db.execute("PRAGMA synchronous=NORMAL")
                    self._make_tables()
                else:
                    self._db.execute("PRAGMA query_only=1")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; SQLite folds the write-ahead log in."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        self._unlock()

    def _unlock(self) -> None:
        descriptor, self._lock = self._lock, None
        if descriptor is not None:
            os.close(descriptor)

    def _make_tables(self) -> None:
        with self._transaction():
            for statement in (
                "meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
                "inputs (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, size INTEGER, mtime INTEGER, "
                "inode INTEGER, window INTEGER NOT NULL, cut INTEGER NOT NULL, sha256 TEXT, format TEXT, "
                "reason TEXT, sentence TEXT, tie TEXT, waits INTEGER NOT NULL DEFAULT 0, "
                "state INTEGER NOT NULL DEFAULT 0)",
                f"files ({_columns(FileRow, key='row')})",
                f"scores (place INTEGER NOT NULL, {_columns(ScoreRow, without=_COMPUTED)})",
                f"exams (place INTEGER NOT NULL, {_columns(ExamRow, without=_NAMED)})",
                f"thumbnails ({_columns(Thumbnail, key='row')})",
                f"units ({_columns(UnitRow, key='row')})",
                "numbers (id INTEGER PRIMARY KEY, row INTEGER NOT NULL)",
            ):
                self._db.execute(f"CREATE TABLE IF NOT EXISTS {statement}")
            indexed = (
                ("inputs", "tie"),
                ("inputs", "window"),
                ("files", "study"),
                ("scores", "study"),
                ("exams", "study"),
                ("numbers", "row"),
            )
            for index, column in indexed:
                self._db.execute(f"CREATE INDEX IF NOT EXISTS {index}_by_{column} ON {index} ({column})")
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (json.dumps(_FORMAT),))

    def _refuse_foreign(self, folder: Path, create: bool) -> None:
        """Refuse a database that is not ours before anything is written to it."""
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables and create:
            return
        if not tables:  # stopped before it was made
            raise MedclipError(Reason.MISSING_FILE, "there is no ledger of a scoring run here.", where=folder)
        try:
            version = self.get("format") if tables >= {"meta", "files", "scores"} else None
        except (sqlite3.OperationalError, ValueError):
            version = None
        if version is None:
            raise in_use(folder, f"{FILE_NAME} in this folder is not a ledger that medclip can read", _ELSEWHERE)
        if version != _FORMAT:
            raise in_use(folder, "this folder holds a run of another version of medclip", _ELSEWHERE)

    # What a run is.

    def get(self, key: str) -> Any:
        """Read one remembered value, None where there is none."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def remember(self, values: Mapping[str, Any]) -> None:
        """Remember values (JSON), all or none."""
        with self._transaction():
            self._remember(values)

    def _remember(self, values: Mapping[str, Any]) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)",
            [(key, json.dumps(value, sort_keys=True)) for key, value in values.items()],
        )

    # The files, as they are listed and looked at.

    def register(
        self, refs: Sequence[FileRef], *, cut: bool = False, frontier: Any = None, added: bool = False
    ) -> list[KnownFile]:
        """Write down the files of a new window, all or none.

        Args:
            refs: The files; those that cannot be opened carry a problem.
            cut: Whether their folder goes on in other windows.
            frontier: Place in the walk up to which all files are listed now; None leaves it where it was.
            added: Whether they came later than those around them; such files are counted.
        """
        with self._transaction():
            self._go_on()
            window = self._next_window()
            self._db.executemany(
                "INSERT INTO inputs (name, size, mtime, inode, window, cut, reason, sentence) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(ref.name, *ref.stamp, window, cut, *_of_problem(ref.problem)) for ref in refs],
            )
            if frontier is not None:
                self._remember({"frontier": frontier})
            if added:
                self._remember({"added": (self.get("added") or 0) + len(refs)})
        return self.window(window)

    def known(self, names: Sequence[str]) -> dict[str, KnownFile]:
        """Return what is known of the files of these names."""
        marks = ", ".join("?" for _ in names)
        query = f"{_SELECT_INPUTS} WHERE name IN ({marks})"
        return {file.name: file for file in map(_known, self._db.execute(query, tuple(names)))}

    def window(self, window: int) -> list[KnownFile]:
        """Return the files of a window, in the order they were listed."""
        return list(map(_known, self._db.execute(f"{_SELECT_INPUTS} WHERE window = ? ORDER BY id", (window,))))

    def open_windows(self) -> list[int]:
        """Return the windows with files that are neither done nor waiting for others of their study."""
        query = (
            f"SELECT DISTINCT window FROM inputs WHERE state < {DONE} AND NOT (tie IS NOT NULL AND {_LATE}) ORDER BY 1"  # noqa: S608
        )
        return [row[0] for row in self._db.execute(query)]

    def looked_at(self, looks: Iterable[Look]) -> None:
        """Write down what was learnt of files, all or none. Files that are done stay so."""
        with self._transaction():
            self._db.executemany(
                "UPDATE inputs SET size = ?, mtime = ?, inode = ?, sha256 = ?, format = ?, "
                "reason = COALESCE(?, reason), sentence = COALESCE(?, sentence), state = MAX(state, ?) WHERE id = ?",
                [(*k.stamp, k.sha256, k.format, *_of_problem(k.problem), LOOKED_AT, k.id) for k in looks],
            )

    def tie(self, ties: Iterable[tuple[int, str, bool]]) -> None:
        """Write down which study each file belongs to, and whether it waits until all files are known."""
        with self._transaction():
            self._db.executemany(
                "UPDATE inputs SET tie = ?, waits = MAX(waits, ?) WHERE id = ?", [(t, w, i) for i, t, w in ties]
            )

    def tied_before(self, tie: str, window: int) -> bool:
        """Return whether an earlier window has files of a study."""
        query = "SELECT EXISTS (SELECT 1 FROM inputs WHERE tie = ? AND window < ?)"
        return bool(self._db.execute(query, (tie, window)).fetchone()[0])

    def late_ties(self) -> list[str]:
        """Return the studies that waited for all of their files and are not done, in the order of their first file."""
        query = (
            f"SELECT tie FROM inputs WHERE {_LATE} GROUP BY tie HAVING MIN(state) < {DONE_FOR_GOOD} "  # noqa: S608
            "ORDER BY MIN(name)"
        )
        return [row[0] for row in self._db.execute(query)]

    def files_of_tie(self, tie: str) -> list[KnownFile]:
        """Return the files of one study, by name."""
        return list(map(_known, self._db.execute(f"{_SELECT_INPUTS} WHERE tie = ? ORDER BY name", (tie,))))

    def open_again(self, files: Mapping[int, FileRef | None]) -> None:
        """Take back what is known of files, all or none: they are looked at as if they had just come, in new windows.

        Their rows go, and so do the scores of their studies, whose other files are scored once more: what a file holds
        now may belong to another study.

        Args:
            files: Their numbers, with what the walk says of them now; None for those that are gone, which keep why they
                could not be opened if they never could.
        """
        if not files:
            return
        with self._transaction():
            self._go_on()
            self._db.execute("CREATE TEMP TABLE again (id INTEGER PRIMARY KEY)")
            self._db.executemany("INSERT INTO again VALUES (?)", [(number,) for number in files])
            for table in _BY_STUDY:
                self._db.execute(f"DELETE FROM {table} WHERE study IN (SELECT study FROM files WHERE row IN again)")  # noqa: S608
            for table in _BY_FILE:
                self._db.execute(f"DELETE FROM {table} WHERE row IN again")  # noqa: S608 - names of our own tables
            self._db.execute(
                "UPDATE inputs SET waits = 1, state = MIN(state, ?) "
                "WHERE tie IN (SELECT tie FROM inputs WHERE id IN again)",
                (LOOKED_AT,),
            )
            window = self._next_window()
            self._db.executemany(
                "UPDATE inputs SET window = ?, cut = 0, sha256 = NULL, tie = NULL, waits = 0, state = ?, "
                "reason = IIF(inode, NULL, reason), sentence = IIF(inode, NULL, sentence) WHERE id = ?",
                [(window + index // _AGAIN_FILES, LISTED, number) for index, number in enumerate(files)],
            )
            self._db.executemany(
                "UPDATE inputs SET size = ?, mtime = ?, inode = ?, reason = ?, sentence = ? WHERE id = ?",
                [(*ref.stamp, *_of_problem(ref.problem), number) for number, ref in files.items() if ref is not None],
            )
            self._db.execute("DROP TABLE again")

    def _next_window(self) -> int:
        return self._db.execute("SELECT COALESCE(MAX(window), -1) + 1 FROM inputs").fetchone()[0]

    def _go_on(self) -> None:
        """A run with files that are not done is not finished, also if it was."""
        self._db.execute("DELETE FROM meta WHERE key = 'finished'")

    def failed_ids(self, reason: str | None) -> list[int]:
        """Return the files that failed, all or for one reason."""
        query = "SELECT row FROM files WHERE status = 'failed' AND (reason = ? OR ? IS NULL) ORDER BY row"
        return [row[0] for row in self._db.execute(query, (reason, reason))]

    def digest(self) -> str:
        """Hash names, sizes and hashes of all files, in the order of their names."""
        state = hashlib.sha256()
        for name, size, sha256 in self._db.execute("SELECT name, size, COALESCE(sha256, '') FROM inputs ORDER BY name"):
            state.update(f"{name}\0{size}\0{sha256}\n".encode())
        return state.hexdigest()

    def num_listed(self) -> int:
        """Count the files that are known so far."""
        return self._db.execute("SELECT COUNT(*) FROM inputs").fetchone()[0]

    def num_files(self) -> int:
        """Count the files among them that the file system knew."""
        return self._db.execute("SELECT COUNT(*) FROM inputs WHERE mtime != 0").fetchone()[0]

    def num_done(self) -> int:
        """Count the files that are not read again. Rows do not tell: those of studies that grow stay meanwhile."""
        return self._db.execute(f"SELECT COUNT(*) FROM inputs WHERE state >= {DONE}").fetchone()[0]  # noqa: S608

    # Results.

    def commit(self, result: ChunkResult) -> tuple[int, int]:
        """Write one chunk in the place of what there was of its files and studies: all of it or nothing.

        Returns:
            By how many files and scored studies the run has grown.
        """
        ids = [row.row for row in result.files]
        with self._transaction():
            old: dict[str | None, bool] = {}
            num_old = 0
            for number in ids:
                for study, status in self._db.execute("SELECT study, status FROM files WHERE row = ?", (number,)):
                    num_old += 1
                    old[study] = old.get(study, False) or status == "scored"
            for table in _BY_STUDY:
                self._db.executemany(f"DELETE FROM {table} WHERE study = ?", [(study,) for study in old])  # noqa: S608
            for table in _BY_FILE:
                self._db.executemany(f"DELETE FROM {table} WHERE row = ?", [(number,) for number in ids])  # noqa: S608
            self._insert("files", FileRow, result.files)
            self._insert("scores", ScoreRow, result.scores)
            self._insert("exams", ExamRow, result.exams)
            self._insert("thumbnails", Thumbnail, result.thumbnails)
            self._insert("units", UnitRow, result.units)
            self._db.executemany("UPDATE inputs SET state = ? WHERE id = ?", [(result.state, number) for number in ids])
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
            files: By their numbers, which stay; read to the end before `scores`, and both some at a time.
            scores: Those of a study in their order, and those of its views among them.
            thumbnails: By the numbers of files.
            remembered: What the ledger of that run knew: whether names are hashed, and the like.
        """
        with self._transaction():
            for table in (*_BY_FILE, *_BY_STUDY, "inputs", "numbers"):
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
            self._remember(remembered)

    def units(self, *, by_study: bool = False, failed: bool = False) -> Iterator[tuple[Any, ...]]:
        """Yield what is kept of units, beside what their first file's row says: see `medclip.runs.unit_rows`.

        Args:
            by_study: Those of a study side by side, studies by their first file; else in the order of files.
            failed: Those without vectors instead.
        """
        ordered = f"{_UNIT_ORDER} ORDER BY {'first, n.row' if by_study else 'n.row'}"
        for number, _ in self._db.execute(ordered, (not failed,)):  # light: no vector is sorted
            yield from self._db.execute(f"{_SELECT_UNITS} WHERE u.row = ?", (number,))

    def number(self) -> None:
        """Number the files by their names, from 1. The rows that are read from now on have these numbers."""
        if self.get("hashed"):  # they were numbered while they had their names
            return
        with self._transaction():
            self._db.execute("DELETE FROM numbers")
            self._db.execute("INSERT INTO numbers SELECT id, row_number() OVER (ORDER BY name) FROM inputs")

    def hash_names(self, hashed: Callable[[str], str]) -> None:
        """Put a hash in the place of every file's name, so that no name is left in the ledger."""
        self._db.create_function("hashed", 1, hashed, deterministic=True)
        with self._transaction():
            self._db.execute("UPDATE inputs SET name = hashed(name)")
            self._db.execute("UPDATE files SET path = hashed(path)")
            self._remember({"hashed": True})
        with _ledger_errors(self._path.parent):
            self._db.execute("VACUUM")  # what was deleted is still in the file until then
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def name_again(self, names: Iterable[tuple[str, str]]) -> None:
        """Put names in the place of their hashes again."""
        with self._transaction():
            for name, hashed in names:
                self._db.execute("UPDATE inputs SET name = ? WHERE name = ?", (name, hashed))
                self._db.execute("UPDATE files SET path = ? WHERE path = ?", (name, hashed))
            self._remember({"hashed": False})

    def files(self) -> Iterator[FileRow]:
        """Yield every file's row in the order of names."""
        return map(_file_row, self._db.execute(f"{_SELECT_FILES} ORDER BY n.row"))

    def scores(self) -> Iterator[ScoreRow]:
        """Yield every score, in the order of the studies' first files."""
        query = f"SELECT {_SCORE_NAMES} FROM scores JOIN {_FIRST} ON s = study ORDER BY first, place"  # noqa: S608
        named: tuple[str, _Named] = ("", ("[]", 0, None))
        for values in self._db.execute(query):
            if values[0] != named[0]:
                named = values[0], self._named(values[0])
            yield _score_row(values, named[1])

    def _named(self, study: str) -> _Named:
        """Return names of the files that a study's scores were made from, as JSON, their number, and what to note."""
        query = "SELECT path, headers FROM files WHERE study = ? AND status = 'scored' ORDER BY path"
        rows = self._db.execute(query, (study,)).fetchall()
        names = json.dumps([path for path, _ in rows[:NAMED_FILES]], ensure_ascii=False)
        return names, len(rows), note_of(headers for _, headers in rows)

    def scores_of(self, study: str) -> list[ScoreRow]:
        """Return the scores of one study."""
        query = f"SELECT {_SCORE_NAMES} FROM scores WHERE study = ? ORDER BY place"  # noqa: S608 - names of our fields
        named = self._named(study)
        return [_score_row(values, named) for values in self._db.execute(query, (study,))]

    def exams(self) -> Iterator[ExamRow]:
        """Yield every row of an examination, in the order of the examinations' first files."""
        query = f"{_SELECT_EXAMS} JOIN {_FIRST} ON s = e.study ORDER BY first, place"
        return (ExamRow(*values) for values in self._db.execute(query))

    def exam_of(self, study: str) -> list[ExamRow]:
        """Return the rows of one examination; none for a study that is none."""
        query = f"{_SELECT_EXAMS} WHERE e.study = ? ORDER BY place"
        return [ExamRow(*values) for values in self._db.execute(query, (study,))]

    def files_of(self, study: str, status: str = "scored") -> list[FileRow]:
        """Return the files of one study that ended alike."""
        query = f"{_SELECT_FILES} WHERE f.study = ? AND f.status = ? ORDER BY n.row"
        return list(map(_file_row, self._db.execute(query, (study, status))))

    def studies(self, limit: int, by: tuple[str, str] | None = None) -> list[str]:
        """Return the keys of the first scored studies.

        Args:
            limit: Studies at most.
            by: Task and class by whose probability they are sorted, the highest first and studies without it last;
                equal ones, and all without a choice, in the order of their first files.
        """
        query = (
            "SELECT study FROM files f JOIN numbers n ON n.id = f.row WHERE status = 'scored' AND study IN "
            "(SELECT study FROM scores) GROUP BY study ORDER BY (SELECT MAX(probability) FROM scores s "
            "WHERE s.study = f.study AND s.task = ? AND s.class = ?) DESC, MIN(n.row) LIMIT ?"
        )
        return [row[0] for row in self._db.execute(query, (*(by or (None, None)), limit))]

    def spread(self, bins: int) -> dict[tuple[str, str], list[int]]:
        """Count the studies of each task and class by probability, in equal bins from 0 to 1."""
        query = (
            "SELECT task, class, MIN(CAST(probability * ?1 AS INTEGER), ?1 - 1), COUNT(*) FROM scores GROUP BY 1, 2, 3"
        )
        counts: dict[tuple[str, str], list[int]] = {}
        for task, name, place, num in self._db.execute(query, (bins,)):
            counts.setdefault((task, name), [0] * bins)[place] = num
        return counts

    def num_from(self, score: tuple[str, str], least: float) -> int:
        """Count the studies with at least a probability of a task's class."""
        query = "SELECT COUNT(*) FROM scores WHERE task = ? AND class = ? AND probability >= ?"
        return self._db.execute(query, (*score, least)).fetchone()[0]

    def thumbnail(self, row: int) -> Thumbnail | None:
        """Return what is kept beside the file of a number."""
        query = "SELECT t.* FROM thumbnails t JOIN numbers n ON n.id = t.row WHERE n.row = ?"
        values = self._db.execute(query, (row,)).fetchone()
        return None if values is None else Thumbnail(row, values[1], bool(values[2]))

    def keep_thumbnails(self, studies: Iterable[str]) -> None:
        """Remove the thumbnails of all other studies."""
        with self._transaction():
            self._db.execute("CREATE TEMP TABLE IF NOT EXISTS shown (study TEXT PRIMARY KEY)")
            self._db.execute("DELETE FROM shown")
            self._db.executemany("INSERT OR IGNORE INTO shown VALUES (?)", [(study,) for study in studies])
            self._db.execute(
                "DELETE FROM thumbnails WHERE row NOT IN "
                "(SELECT row FROM files WHERE study IN (SELECT study FROM shown))"
            )

    def counts(self) -> dict[str, int]:
        """Count files by status and scored studies."""
        counts = dict.fromkeys(("scored", "skipped", "failed"), 0)
        counts.update(self._db.execute("SELECT status, COUNT(*) FROM files GROUP BY status").fetchall())
        (studies,) = self._db.execute("SELECT COUNT(DISTINCT study) FROM files WHERE status = 'scored'").fetchone()
        return {"files": sum(counts.values()), **counts, "studies": studies}

    def counts_by(self, column: str, status: str = "scored") -> dict[str, int]:
        """Count the files that ended alike by one of their columns."""
        assert column in {field.name for field in fields(FileRow)}
        query = f"SELECT {column}, COUNT(*) FROM files WHERE status = ? GROUP BY {column} ORDER BY 2 DESC, 1"  # noqa: S608 - checked
        return {str(value): count for value, count in self._db.execute(query, (status,))}

    def thumbnails(self) -> Iterator[tuple[int, bytes]]:
        """Yield the number of a file and the small image that is kept beside it, where it is shown."""
        query = (
            "SELECT n.row, t.thumbnail FROM thumbnails t JOIN numbers n ON n.id = t.row "
            "WHERE LENGTH(t.thumbnail) ORDER BY 1"
        )
        yield from self._db.execute(query)

    def _insert(
        self,
        table: str,
        row_type: type,
        rows: Iterable[FileRow | ScoreRow | ExamRow | Thumbnail | UnitRow],
        places: Iterator[int] | None = None,
    ) -> None:
        has_place = table in _BY_STUDY
        left_out = {"scores": _COMPUTED, "exams": _NAMED}.get(table, ())
        names = [field.name for field in fields(row_type) if field.name not in left_out]
        columns = ["place"] * has_place + [_name(name) for name in names]
        marks = ", ".join("?" for _ in columns)
        statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 - names of our own fields
        numbered = ((next(places), row) for row in rows) if places is not None else enumerate(rows)
        values = ([place] * has_place + [getattr(row, name) for name in names] for place, row in numbered)
        self._db.executemany(statement, values)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with _ledger_errors(self._path.parent):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise


@contextlib.contextmanager
def _ledger_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk and a locked or foreign ledger into one sentence each."""
    try:
        yield
    except sqlite3.DatabaseError as e:
        text = str(e)
        error: MedclipError | None = None
        if "full" in text or ("disk I/O" in text and shutil.disk_usage(folder).free < _NO_ROOM_BYTES):
            error = disk_error(OSError(errno.ENOSPC, text), folder)
        elif "disk I/O" in text and _is_as_large_as_allowed(folder):
            error = disk_error(OSError(errno.EFBIG, text), folder)
        elif "locked" in text:
            error = MedclipError(
                Reason.BUSY, "another medclip is writing to this folder.", where=folder, hint="Let it finish."
            )
        elif "not a database" in text or "malformed" in text:
            error = in_use(folder, f"{FILE_NAME} in this folder is not a ledger that medclip can read", _ELSEWHERE)
        elif "disk I/O" in text:
            error = disk_error(OSError(errno.EIO, text), folder)
        elif "readonly" in text or "unable to open" in text:
            error = disk_error(OSError(errno.EACCES, text), folder)
        if error is None:
            raise
        raise error from e


def _is_as_large_as_allowed(folder: Path) -> bool:
    """Return whether the ledger has the size that files may have (`ulimit -f`); SQLite does not say why it failed."""
    try:
        import resource
    except ImportError:  # no such limits on Windows
        return False
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    sizes = [path.stat().st_size for path in folder.glob(f"{FILE_NAME}*")]
    return limit != resource.RLIM_INFINITY and max(sizes, default=0) + _PAGES_BYTES > limit


def _name(field: str) -> str:
    return f'"{field.rstrip("_")}"'


def _columns(row_type: type, key: str = "", without: Sequence[str] = ()) -> str:
    return ", ".join(
        _name(field.name) + (" INTEGER PRIMARY KEY" if field.name == key else _sql_type(str(field.type)))
        for field in fields(row_type)
        if field.name not in without
    )


def _sql_type(annotation: str) -> str:
    kind = annotation.split(" ")[0]
    null = "" if "None" in annotation else " NOT NULL"
    return {"int": " INTEGER", "float": " REAL", "str": " TEXT", "bytes": " BLOB", "bool": " INTEGER"}[kind] + null


def _of_problem(problem: Problem | None) -> tuple[str | None, str | None]:
    return (None, None) if problem is None else (str(problem.reason), problem.sentence)


def _known(values: tuple[Any, ...]) -> KnownFile:
    key, name, size, mtime, inode, window, cut, state, sha256, reason, sentence = values
    problem = None if reason is None else Problem(Reason(reason), sentence)
    return KnownFile(key, name, Stamp(size, mtime, inode), window, bool(cut), state, sha256, problem)


def _file_row(values: tuple[Any, ...]) -> FileRow:
    return FileRow(*values)


_Named = tuple[str, int, str | None]
"""Of a study: its files as JSON, their number, and its note."""


def _score_row(values: tuple[Any, ...], named: _Named) -> ScoreRow:
    return ScoreRow(*values, files=named[0], num_files=named[1], note=named[2])


_BY_FILE = ("files", "thumbnails", "units")
"""Tables whose rows have the number of a file."""
_BY_STUDY = ("scores", "exams")
"""Tables whose rows have the key of a study, and their place in it."""
_COMPUTED = ("files", "num_files", "note")
_NAMED = ("file",)
_SCORE_NAMES = ", ".join(_name(field.name) for field in fields(ScoreRow) if field.name not in _COMPUTED)
_SELECT_INPUTS = "SELECT id, name, size, mtime, inode, window, cut, state, sha256, reason, sentence FROM inputs"
_NUMBERED = {"row": "n.row", "unit": "u.row", "copy_of": "c.row"}
_FILE_NAMES = ", ".join(_NUMBERED.get(field.name, f"f.{_name(field.name)}") for field in fields(FileRow))
_SELECT_FILES = (
    f"SELECT {_FILE_NAMES} FROM files f "  # noqa: S608 - names of our own fields
    "JOIN numbers n ON n.id = f.row LEFT JOIN numbers u ON u.id = f.unit LEFT JOIN numbers c ON c.id = f.copy_of"
)
_FIRST = (
    "(SELECT study AS s, MIN(n.row) AS first FROM files f JOIN numbers n ON n.id = f.row "
    "WHERE status = 'scored' GROUP BY study)"
)
_EXAM_NAMES = ", ".join(
    {"row": "n.row", "file": "f.path"}.get(field.name, f"e.{_name(field.name)}") for field in fields(ExamRow)
)
_SELECT_EXAMS = (
    f"SELECT {_EXAM_NAMES} FROM exams e LEFT JOIN files f ON f.row = e.row LEFT JOIN numbers n ON n.id = e.row"  # noqa: S608 - names of our own fields
)
_SELECT_UNITS = (
    "SELECT n.row, f.study, u.grouped, u.patient, f.modality, f.kind, u.sha256, u.features, f.laterality, f.view, "
    "u.body_part, f.headers, u.burned_in, u.stranger, i.row, u.look FROM units u JOIN files f ON f.row = u.row "
    "JOIN numbers n ON n.id = u.row LEFT JOIN numbers i ON i.id = u.instead_of"
)
_UNIT_ORDER = (
    "SELECT u.row, MIN(n.row) OVER (PARTITION BY f.study) AS first FROM units u JOIN files f ON f.row = u.row "
    "JOIN numbers n ON n.id = u.row WHERE (f.status = 'scored') = ?"
)
