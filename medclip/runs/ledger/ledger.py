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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.discover import LEDGER
from medclip.files.locks import lock_folder, network_file_system
from medclip.files.output import disk_error, in_use
from medclip.runs.ledger.database import Database
from medclip.runs.ledger.input_rows import InputRows
from medclip.runs.ledger.ledger_errors import ELSEWHERE, ledger_errors
from medclip.runs.ledger.pace import PaceKeeper
from medclip.runs.ledger.result_reader import ResultReader
from medclip.runs.ledger.result_writer import ResultWriter
from medclip.runs.ledger.schema import FORMAT, make_tables
from medclip.runs.ledger.shard_reader import ShardReader
from medclip.runs.ledger.study_files import StudyFiles

FILE_NAME = LEDGER


class Ledger(InputRows, ResultWriter, ResultReader, StudyFiles, ShardReader):
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
        self._db.remember(values)
