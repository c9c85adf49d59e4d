"""Copy the ledgers of the shards of a run into one: their rows with new numbers, their windows one after the other."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.runs.ledger.database import Database
from medclip.runs.ledger.known_files import LOOKED_AT

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


class ShardReader:
    """The part of a ledger that takes in others."""

    _db: Database

    def fill_from_shards(self, shards: Sequence[ShardReader], remembered: Mapping[str, Any]) -> None:
        """Write what shards of one run know into a new ledger, all or nothing.

        Studies with files in several shards are taken back: they are computed anew when the run goes on, as those whose
        files lie in several windows are.

        Args:
            shards: Open ledgers of the shards.
            remembered: Facts that are to be remembered of the run.

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

    def _take(self, shard: ShardReader, table: str, added: Mapping[str, int]) -> None:
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


def _renumbered(rows: Sequence[tuple[Any, ...]], places: Sequence[tuple[int, int]]) -> Iterator[list[Any]]:
    for row in rows:
        values = list(row)
        for place, before in places:
            if values[place] is not None:
                values[place] += before
        yield values
