"""The open SQLite file of a ledger: transactions, and values that are remembered under a key."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medclip.runs.ledger.ledger_errors import ledger_errors


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

    def remember(self, values: Mapping[str, Any]) -> None:
        """Remember values (JSON), all or none."""
        with self.transaction():
            self.keep(values)

    def keep(self, values: Mapping[str, Any]) -> None:
        """Remember values within a transaction that is open."""
        self.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)",
            [(key, json.dumps(value, sort_keys=True)) for key, value in values.items()],
        )

    def forget(self) -> None:
        """Take what was deleted or overwritten out of the file, where it is until then.

        Raises:
            MedclipError: As `ledger_errors`.
        """
        with ledger_errors(self._folder):
            self.execute("VACUUM")
            self.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all that is written meanwhile, or nothing.

        Raises:
            MedclipError: As `ledger_errors`.
        """
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
