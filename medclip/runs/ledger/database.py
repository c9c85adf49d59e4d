"""The SQLite file of a ledger: its tables, transactions, remembered values, and its errors as one sentence each."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.discover import LEDGER
from medclip.files.output import disk_error, in_use
from medclip.runs.rows import ExamRow, FileRow, MapImage, MapRow, ScoreRow, Thumbnail, UnitRow

ELSEWHERE = "Name another folder."
_NO_ROOM_BYTES = 1_000_000
_PAGES_BYTES = 1 << 16
"""SQLite writes in pages; a file that a limit stopped is this much smaller than the limit at most."""


@contextlib.contextmanager
def ledger_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk and a locked or foreign ledger into one sentence each."""
    try:
        yield
    except sqlite3.DatabaseError as e:
        text = str(e)
        error: MedclipError | None = None
        if _is_read_only(folder):
            error = disk_error(OSError(errno.EROFS, text), folder)
        elif "full" in text or ("disk I/O" in text and shutil.disk_usage(folder).free < _NO_ROOM_BYTES):
            error = disk_error(OSError(errno.ENOSPC, text), folder)
        elif "disk I/O" in text and _is_as_large_as_allowed(folder):
            error = disk_error(OSError(errno.EFBIG, text), folder)
        elif "locked" in text:
            error = MedclipError(
                Reason.BUSY, "another medclip is writing to this folder.", where=folder, hint="Let it finish."
            )
        elif "not a database" in text or "malformed" in text:
            error = in_use(folder, f"{LEDGER} in this folder is not a ledger that medclip can read", ELSEWHERE)
        elif "disk I/O" in text:
            error = disk_error(OSError(errno.EIO, text), folder)
        elif "readonly" in text or "unable to open" in text:
            error = disk_error(OSError(errno.EACCES, text), folder)
        if error is None:
            raise
        raise error from e


def _is_read_only(folder: Path) -> bool:
    """Return whether the file system takes no writing any more; SQLite says that in three ways."""
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except (AttributeError, OSError):  # Windows; a drive that is gone
        return False


def _is_as_large_as_allowed(folder: Path) -> bool:
    """Return whether the ledger has the size that files may have (`ulimit -f`); SQLite does not say why it failed."""
    try:
        import resource
    except ImportError:  # no such limits on Windows
        return False
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    sizes = [path.stat().st_size for path in folder.glob(f"{LEDGER}*")]
    return limit != resource.RLIM_INFINITY and max(sizes, default=0) + _PAGES_BYTES > limit


class Database:
    """An open ledger's file.

    Args:
        path: Path of the file, in the output folder.
        timeout_s: Seconds to wait for another process's transaction.

    Raises:
        sqlite3.Error: As SQLite cannot open it.
    """

    def __init__(self, path: Path, timeout_s: float = 5.0) -> None:
        self._folder = path.parent
        self.seconds = 0.0  # for how long transactions were open
        self._connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
        self.execute, self.executemany = self._connection.execute, self._connection.executemany
        self.create_function = self._connection.create_function

    def write_ahead(self) -> None:
        """Keep a write-ahead log, so that others read while this process writes.

        Raises:
            sqlite3.Error: As SQLite cannot.
        """
        self.execute("PRAGMA journal_mode=WAL")
        self.execute("PRAGMA synchronous=NORMAL")

    def roll_back(self) -> None:
        """Keep a rollback journal: of a file on a network drive, where processes share no memory for a log.

        Whoever reads waits for the transaction that is open, and a commit for whoever reads; both take milliseconds.
        https://www.sqlite.org/wal.html, "All processes using a database must be on the same host computer".

        Raises:
            sqlite3.Error: As SQLite cannot.
        """
        self.execute("PRAGMA locking_mode=EXCLUSIVE")  # a log that came with the file is folded in without that memory
        self.execute("PRAGMA journal_mode=TRUNCATE")
        self.execute("PRAGMA locking_mode=NORMAL")
        self.execute("PRAGMA synchronous=FULL")
        self.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()  # lets go of the exclusive lock

    def close(self) -> None:
        """Close the file; SQLite folds the write-ahead log in."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def get(self, key: str) -> Any:
        """Read one remembered value, None where there is none."""
        row = self.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def keep(self, values: Mapping[str, Any]) -> None:
        """Remember values (JSON) within a transaction that is open."""
        self.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)",
            [(key, json.dumps(value, sort_keys=True)) for key, value in values.items()],
        )

    def forget(self) -> None:
        """Take what was deleted or overwritten out of the file, where it is until then."""
        with ledger_errors(self._folder):
            self.execute("VACUUM")
            self.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all that is written meanwhile, or nothing."""
        with ledger_errors(self._folder):
            begun = time.monotonic()
            self.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.execute("COMMIT")
                self.seconds += time.monotonic() - begun
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self.execute("ROLLBACK")
                raise


FORMAT = 13
"""Raised when columns change."""
BY_FILE = ("files", "thumbnails", "units", "maps", "map_images")
"""Tables whose rows have the number of a file."""
BY_STUDY = ("scores", "exams", "results")
"""Tables whose rows have the key of a study: they go when it is scored anew."""
PLACED = ("scores", "exams", "maps", "map_images")
"""Tables whose rows have a place: in their study, or among those that were written with them."""
COMPUTED = ("files", "num_files", "note")
NAMED = ("file", "map")
"""Columns that name files, whose names may change until the tables are written."""


def make_tables(db: Database) -> None:
    """Make the tables that are not there."""
    with db.transaction():
        for statement in (
            "meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
            "inputs (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, size INTEGER, mtime INTEGER, "
            "inode INTEGER, window INTEGER NOT NULL, cut INTEGER NOT NULL, sha256 TEXT, format TEXT, instance TEXT, "
            "reason TEXT, sentence TEXT, tie TEXT, waits INTEGER NOT NULL DEFAULT 0, "
            "state INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 1, "
            "seconds REAL NOT NULL DEFAULT 0, worker TEXT)",
            f"files ({_columns(FileRow, key='row')})",
            f"scores (place INTEGER NOT NULL, {_columns(ScoreRow, without=COMPUTED)})",
            f"exams (place INTEGER NOT NULL, {_columns(ExamRow, without=NAMED)})",
            f"maps (place INTEGER NOT NULL, {_columns(MapRow, without=NAMED)})",
            f"map_images (place INTEGER NOT NULL, {_columns(MapImage)})",
            f"thumbnails ({_columns(Thumbnail, key='row')})",
            f"units ({_columns(UnitRow, key='row')})",
            "numbers (id INTEGER PRIMARY KEY, row INTEGER NOT NULL)",
            "results (study TEXT NOT NULL, form TEXT NOT NULL, lacking TEXT NOT NULL, PRIMARY KEY (study, form)) "
            "WITHOUT ROWID",
        ):
            db.execute(f"CREATE TABLE IF NOT EXISTS {statement}")
        indexed = (
            ("inputs", "tie"),
            ("inputs", "window"),
            ("files", "study, status, reason"),  # counts read it alone: a row has a kilobyte, and there may be millions
            ("scores", "study"),
            ("exams", "study"),
            ("maps", "row"),
            ("maps", "study, row"),
            ("map_images", "row"),
            ("numbers", "row"),
        )
        for index, column in indexed:
            name = f"{index}_by_{column.split(',')[0]}"
            db.execute(f"CREATE INDEX IF NOT EXISTS {name} ON {index} ({column})")
        db.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (json.dumps(FORMAT),))


def column_name(field: str) -> str:
    """Return the name of a field's column, quoted."""
    return f'"{field.rstrip("_")}"'


def _columns(row_type: type, key: str = "", without: Sequence[str] = ()) -> str:
    return ", ".join(
        column_name(field.name) + (" INTEGER PRIMARY KEY" if field.name == key else _sql_type(str(field.type)))
        for field in fields(row_type)
        if field.name not in without
    )


def _sql_type(annotation: str) -> str:
    kind = annotation.split(" ")[0]
    null = "" if "None" in annotation else " NOT NULL"
    return {"int": " INTEGER", "float": " REAL", "str": " TEXT", "bytes": " BLOB", "bool": " INTEGER"}[kind] + null
