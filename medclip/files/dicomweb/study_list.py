"""The studies that a server listed, in the order of their hashed names: on disk, so that a million are no burden."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from medclip.files.pseudonyms import keyed_hash

_AT_ONCE = 500


@dataclass(frozen=True)
class ListedStudy:
    """One study."""

    name: str
    """Keyed hash of its UID: the folder of its files."""
    uid: str
    num_instances: int | None
    """What the server says; None where it does not."""

    def file_of(self, instance_uid: str, key: bytes) -> str:
        """Return the name of a file: keyed hashes, since UIDs lead to patients."""
        return f"{self.name}/{keyed_hash('instance', instance_uid, key)}.dcm"


class StudyList:
    """Studies by their names, in a file without a name that is gone with this process.

    Args:
        studies: UID and number of objects of each; one that is listed twice counts once.
        key: Key of the identity hashes.
    """

    def __init__(self, studies: Iterable[tuple[str, int | None]], key: bytes) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute("CREATE TABLE studies (name TEXT PRIMARY KEY, uid TEXT, num INTEGER) WITHOUT ROWID")
        self._db.execute("BEGIN")
        self._db.executemany(
            "INSERT OR IGNORE INTO studies VALUES (?, ?, ?)",
            ((keyed_hash("study", f"uid\0{uid}", key), uid, num) for uid, num in studies),
        )
        self._db.execute("COMMIT")
        query = "SELECT COUNT(*), COALESCE(SUM(MAX(COALESCE(num, 1), 0)), 0) FROM studies"
        self.num_studies, self.num_instances = self._db.execute(query).fetchone()

    def __iter__(self) -> Iterator[ListedStudy]:
        """Yield the studies by name."""
        last = ""
        while some := self._rows("name > ? ORDER BY name LIMIT ?", last, _AT_ONCE):
            yield from some
            last = some[-1].name

    def get(self, name: str) -> ListedStudy | None:
        """Return the study of a name; None where the server does not list it."""
        return next(iter(self._rows("name = ?", name)), None)

    def _rows(self, where: str, *values: object) -> list[ListedStudy]:
        with self._lock:
            rows = self._db.execute(f"SELECT name, uid, num FROM studies WHERE {where}", values).fetchall()  # noqa: S608
        return [ListedStudy(*row) for row in rows]

    def close(self) -> None:
        """Forget them."""
        self._db.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Forget them."""
        self.close()
