"""The ledger: one SQLite file per run that remembers every file and every finished study, so that a killed run goes on.

What is known of a file is written as it comes: its name, size, time and inode when it is listed, its hash and format
when it was looked at. A chunk's rows, scores and thumbnails are committed in one transaction; tables and report are
made from the ledger alone. It holds no header value and no identifier that is not hashed. What reading took is beside
each file: attempts, seconds and the process; none of it is in a table.

One process writes, and any number may read meanwhile (SQLite's write-ahead log). On a network drive, where processes
share no memory, there is a rollback journal in its place: readers wait for the transaction that is open.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.discover import LEDGER
from medclip.files.locks import lock_folder, network_file_system
from medclip.files.output import disk_error, in_use
from medclip.runs.ledger.database import ELSEWHERE, FORMAT, Database, ledger_errors, make_tables
from medclip.runs.ledger.input_rows import InputRows
from medclip.runs.ledger.result_reader import ResultReader
from medclip.runs.ledger.result_writer import PaceKeeper, ResultWriter
from medclip.runs.rows import LOOKED_AT

FILE_NAME = LEDGER


class Ledger(InputRows, ResultWriter, ResultReader):
    """The open ledger of one output folder. One process writes; a second one is refused.

    Args:
        folder: The output folder; it must exist.
        create: Whether the ledger is made where there is none. False opens for reading what another call wrote or
            writes.

    Raises:
        MedclipError: BUSY when another process writes to it; OUTPUT_IN_USE when it is not a ledger; DISK_FULL.
    """

    def __init__(self, folder: Path, *, create: bool = True) -> None:
        self._path, self._lock, self._pace = folder / FILE_NAME, None, PaceKeeper()
        self.drive = network_file_system(folder)
        """Kind of network drive that it lies on; None on a disk."""
        if not create and not self._path.exists():
            raise MedclipError(Reason.MISSING_FILE, "there is no ledger of a scoring run here.", where=folder)
        if create:
            self._lock = lock_folder(folder)
        try:
            if create:  # its owner's alone; the write-ahead log gets the same mode
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            self._db = Database(self._path)
        except (sqlite3.Error, OSError) as e:
            self._unlock()
            error = e if isinstance(e, OSError) else OSError(errno.EACCES, str(e))
            raise disk_error(error, folder) or e from e
        try:
            with ledger_errors(folder):
                self._refuse_foreign(folder, create)
                if create:
                    if self.drive is None:
                        self._db.write_ahead()
                    else:
                        self._db.roll_back()
                    make_tables(self._db)
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
        self._db.close()
        self._unlock()

    def _unlock(self) -> None:
        descriptor, self._lock = self._lock, None
        if descriptor is not None:
            os.close(descriptor)

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
            raise in_use(folder, f"{FILE_NAME} in this folder is not a ledger that medclip can read", ELSEWHERE)
        if version != FORMAT:
            raise in_use(folder, "this folder holds a run of another version of medclip", ELSEWHERE)

    @property
    def write_seconds(self) -> float:
        """For how long transactions were open."""
        return self._db.seconds

    def get(self, key: str) -> Any:
        """Read one remembered value, None where there is none."""
        return self._db.get(key)

    def remember(self, values: Mapping[str, Any]) -> None:
        """Remember values (JSON), all or none."""
        with self._db.transaction():
            self._db.keep(values)

    def wrote(self, files: Iterable[tuple[str, str, str]]) -> None:
        """Remember files, all or none.

        Args:
            files: Study, form, and why there is no file; "" where there is one.
        """
        with self._db.transaction():
            self._db.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", files)

    def files_written(self, study: str) -> dict[str, str]:
        """Return the forms that a study has, with why there is no file; "" where there is one."""
        return dict(self._db.execute("SELECT form, lacking FROM results WHERE study = ?", (study,)).fetchall())

    def count_written(self, form: str) -> dict[str, int]:
        """Count studies by why they have no file of a form; "" for those that have one."""
        query = "SELECT lacking, COUNT(*) FROM results WHERE form = ? GROUP BY lacking ORDER BY lacking"
        return dict(self._db.execute(query, (form,)).fetchall())

    def forget_written(self, forms: Iterable[str] | None = None) -> None:
        """Forget the files of some forms; of all where none are named."""
        with self._db.transaction():
            if forms is None:
                self._db.execute("DELETE FROM results")
            else:
                self._db.executemany("DELETE FROM results WHERE form = ?", [(form,) for form in forms])

    def fill_from_shards(self, shards: Sequence[Ledger], remembered: Mapping[str, Any]) -> None:
        """Write what shards of one run know into a new ledger, all or nothing.

        Studies with files in several shards are taken back: they are computed anew when the run goes on, as those whose
        files lie in several windows are.

        Raises:
            MedclipError: OUTPUT_IN_USE where a file is in two shards: the folder changed while they were listed.
        """
        with self._db.transaction():
            self._db.execute("CREATE TEMP TABLE spans (shard INTEGER, first INTEGER, last INTEGER)")
            for number, shard in enumerate(shards):
                id_before, window_before = self._db.execute(
                    "SELECT COALESCE(MAX(id), 0), COALESCE(MAX(window), -1) + 1 FROM inputs"
                ).fetchone()
                for table, numbers in _NUMBERS.items():
                    self._take(shard, table, dict.fromkeys(numbers, int(id_before)) | {"window": int(window_before)})
                (last,) = self._db.execute("SELECT COALESCE(MAX(window), -1) FROM inputs").fetchone()
                self._db.execute("INSERT INTO spans VALUES (?, ?, ?)", (number, window_before, last))
            self._db.execute(
                "UPDATE inputs SET waits = 1, state = MIN(state, ?) WHERE tie IN (SELECT tie FROM inputs JOIN spans "
                "ON window BETWEEN first AND last WHERE tie IS NOT NULL GROUP BY tie HAVING COUNT(DISTINCT shard) > 1)",
                (LOOKED_AT,),
            )
            self._db.execute("DROP TABLE spans")
            self._db.keep(remembered)

    def _take(self, shard: Ledger, table: str, added: Mapping[str, int]) -> None:
        cursor = shard._db.execute(f"SELECT * FROM {table}")  # noqa: S608 - names of our own tables
        columns = [column[0] for column in cursor.description]
        places = [(place, added[name]) for place, name in enumerate(columns) if name in added]
        marks = ", ".join("?" for _ in columns)
        names = ", ".join(f'"{name}"' for name in columns)
        statement = f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608 - names of our own columns
        try:
            while rows := list(islice(cursor, _AT_ONCE)):
                self._db.executemany(statement, _renumbered(rows, places))
        except sqlite3.IntegrityError as e:
            raise MedclipError(
                Reason.OUTPUT_IN_USE,
                "a file is in two shards: the folder changed between their starts.",
                hint="Run the shards again, in new folders, while no file comes.",
            ) from e


_NUMBERS = {
    "inputs": ("id",),
    "files": ("row", "unit", "copy_of"),
    "scores": (),
    "exams": ("row",),
    "thumbnails": ("row",),
    "units": ("row", "instead_of"),
}
"""Tables, and which of their columns are numbers of files."""
_AT_ONCE = 2000


def _renumbered(rows: Sequence[tuple[Any, ...]], places: Sequence[tuple[int, int]]) -> Iterator[list[Any]]:
    for row in rows:
        values = list(row)
        for place, before in places:
            if values[place] is not None:
                values[place] += before
        yield values
