"""The ledger: one SQLite file per run that remembers every finished chunk, so that a killed run goes on where it was.

A chunk's rows, scores and thumbnails are committed in one transaction; tables and report are made from the
ledger alone. It holds no header value, no identifier that is not hashed, and no time stamp.
"""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.discover import LEDGER
from medclip.files.output import disk_error, in_use
from medclip.runs.rows import FileRow, ScoreRow, Thumbnail

FILE_NAME = LEDGER
_ELSEWHERE = "Name another folder."
_NO_ROOM_BYTES = 1_000_000
_FORMAT = 5
"""Raised when columns change."""


@dataclass(frozen=True)
class ChunkResult:
    """Everything that one chunk adds to a run."""

    index: int
    files: tuple[FileRow, ...]
    scores: tuple[ScoreRow, ...]
    thumbnails: tuple[Thumbnail, ...]


class Ledger:
    """The open ledger of one output folder. One process writes; a second one is refused.

    Args:
        folder: The output folder; it must exist.
        create: Make the ledger where there is none. False opens for reading what another call wrote.

    Raises:
        MedclipError: OUTPUT_IN_USE when another process holds it or it is not a ledger; DISK_FULL.
    """

    def __init__(self, folder: Path, *, create: bool = True) -> None:
        self._path = folder / FILE_NAME
        if not create and not self._path.exists():
            raise MedclipError(Reason.MISSING_FILE, "there is no ledger of a scoring run here.", where=folder)
        self._db = sqlite3.connect(self._path, timeout=1.0, isolation_level=None, check_same_thread=False)
        try:
            with _ledger_errors(folder):
                self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=NORMAL")
                self._make_tables()
            self._check_format(folder)
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; SQLite folds the write-ahead log in."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    def _make_tables(self) -> None:
        with self._transaction():
            self._db.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
            self._db.execute("CREATE TABLE IF NOT EXISTS chunks (chunk INTEGER PRIMARY KEY)")
            self._db.execute(f"CREATE TABLE IF NOT EXISTS files ({_columns(FileRow, key='row')})")
            self._db.execute(f"CREATE TABLE IF NOT EXISTS scores (id INTEGER PRIMARY KEY, {_columns(ScoreRow)})")
            self._db.execute(f"CREATE TABLE IF NOT EXISTS thumbnails ({_columns(Thumbnail, key='row')})")
            self._db.execute("CREATE INDEX IF NOT EXISTS files_by_study ON files (study)")
            self._db.execute("CREATE INDEX IF NOT EXISTS scores_by_study ON scores (study)")
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (json.dumps(_FORMAT),))

    def _check_format(self, folder: Path) -> None:
        if self.get("format") != _FORMAT:
            raise in_use(folder, "this folder holds a run of another version of medclip", _ELSEWHERE)

    def get(self, key: str) -> Any:
        """Read one remembered value, None where there is none."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def remember(self, values: Mapping[str, Any]) -> None:
        """Remember values (JSON), all or none."""
        with self._transaction():
            self._db.executemany(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                [(key, json.dumps(value, sort_keys=True)) for key, value in values.items()],
            )

    def finished_chunks(self) -> frozenset[int]:
        """Return the chunks that are complete."""
        return frozenset(row[0] for row in self._db.execute("SELECT chunk FROM chunks"))

    def commit(self, result: ChunkResult) -> None:
        """Write one chunk: all of it or nothing."""
        with self._transaction():
            self._db.execute("INSERT INTO chunks VALUES (?)", (result.index,))
            self._insert("files", result.files)
            self._insert("scores", result.scores)
            self._insert("thumbnails", result.thumbnails)

    def files(self) -> Iterator[FileRow]:
        """Yield every file's row in file order."""
        for row in self._db.execute("SELECT * FROM files ORDER BY row"):
            yield FileRow(*row)

    def scores(self) -> Iterator[ScoreRow]:
        """Yield every score in study order."""
        for row in self._db.execute("SELECT * FROM scores ORDER BY id"):
            yield ScoreRow(*row[1:])

    def scores_of(self, study: str) -> list[ScoreRow]:
        """Return the scores of one study."""
        rows = self._db.execute("SELECT * FROM scores WHERE study = ? ORDER BY id", (study,))
        return [ScoreRow(*row[1:]) for row in rows]

    def files_of(self, study: str) -> list[FileRow]:
        """Return the scored files of one study."""
        rows = self._db.execute("SELECT * FROM files WHERE study = ? AND status = 'scored' ORDER BY row", (study,))
        return [FileRow(*row) for row in rows]

    def failed_of(self, study: str) -> list[FileRow]:
        """Return the files of one study that failed."""
        rows = self._db.execute("SELECT * FROM files WHERE study = ? AND status = 'failed' ORDER BY row", (study,))
        return [FileRow(*row) for row in rows]

    def studies(self, limit: int) -> list[str]:
        """Return the keys of the first scored studies in study order."""
        query = "SELECT study, MIN(id) AS first FROM scores GROUP BY study ORDER BY first LIMIT ?"
        return [row[0] for row in self._db.execute(query, (limit,))]

    def thumbnail(self, row: int) -> Thumbnail | None:
        """Return what is kept beside one file's row."""
        values = self._db.execute("SELECT * FROM thumbnails WHERE row = ?", (row,)).fetchone()
        return None if values is None else Thumbnail(values[0], values[1], bool(values[2]))

    def counts(self) -> dict[str, int]:
        """Count files by status and scored studies."""
        counts = dict.fromkeys(("scored", "skipped", "failed"), 0)
        counts.update(self._db.execute("SELECT status, COUNT(*) FROM files GROUP BY status").fetchall())
        (studies,) = self._db.execute("SELECT COUNT(DISTINCT study) FROM scores").fetchone()
        return {"files": sum(counts.values()), **counts, "studies": studies}

    def counts_by(self, column: str) -> dict[str, int]:
        """Count scored files by one of their columns."""
        assert column in {field.name for field in fields(FileRow)}
        query = f"SELECT {column}, COUNT(*) FROM files WHERE status = 'scored' GROUP BY {column} ORDER BY 2 DESC, 1"  # noqa: S608 - checked
        return {str(value): count for value, count in self._db.execute(query)}

    def _insert(self, table: str, rows: Sequence[FileRow | ScoreRow | Thumbnail]) -> None:
        if not rows:
            return
        names = ", ".join(_name(field.name) for field in fields(rows[0]))
        marks = ", ".join("?" for _ in fields(rows[0]))
        statement = f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608 - names of our own fields
        self._db.executemany(statement, [astuple(row) for row in rows])

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
        elif "locked" in text:
            error = in_use(folder, "another medclip is writing to this folder", "Let it finish.")
        elif "not a database" in text or "malformed" in text:
            error = in_use(folder, f"{FILE_NAME} in this folder is not a ledger that medclip can read", _ELSEWHERE)
        elif "disk I/O" in text:
            error = disk_error(OSError(errno.EIO, text), folder)
        elif "readonly" in text or "unable to open" in text:
            error = disk_error(OSError(errno.EACCES, text), folder)
        if error is None:
            raise
        raise error from e


def _name(field: str) -> str:
    return f'"{field.rstrip("_")}"'


def _columns(row_type: type, key: str = "") -> str:
    return ", ".join(
        _name(field.name) + (" INTEGER PRIMARY KEY" if field.name == key else _sql_type(str(field.type)))
        for field in fields(row_type)
    )


def _sql_type(annotation: str) -> str:
    kind = annotation.split(" ")[0]
    null = "" if "None" in annotation else " NOT NULL"
    return {"int": " INTEGER", "float": " REAL", "str": " TEXT", "bytes": " BLOB", "bool": " INTEGER"}[kind] + null
