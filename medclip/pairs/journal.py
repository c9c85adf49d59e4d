"""What a run over pairs has done so far. SQLite, one commit each: a run that is killed loses what it was about.

The journal of texts keeps what agents wrote, of the patches that were chosen of a slide or of reports: nothing that was
paid for is asked for again. What became of a slide is not noted here: the store of vectors says it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from medclip.errors import MedclipError, Reason
from medclip.files.output import disk_errors, make_file, make_folder

JOURNAL = "journal.sqlite"
_TABLES = """
create table if not exists choices (slide text primary key, facts text not null);
create table if not exists texts (slide text, number integer, facts text not null, primary key (slide, number));
"""


def open_journal(folder: Path, tables: str, hint: str) -> sqlite3.Connection:
    """Open the journal of a run, which is made where there is none.

    Args:
        folder: Output folder of the run; it is made.
        tables: SQL that makes the tables.
        hint: Remedy where the file is none of ours.

    Raises:
        MedclipError: CORRUPT for a file that is no journal.
    """
    path = folder / JOURNAL
    with disk_errors(folder):
        make_folder(folder)
        make_file(path)
    try:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("pragma journal_mode=wal")
        connection.execute("pragma synchronous=normal")
        connection.executescript(tables)
    except sqlite3.Error as e:
        kind = type(e).__name__
        raise MedclipError(
            Reason.CORRUPT, f"the journal of this run cannot be opened ({kind}).", where=path, hint=hint
        ) from e
    return connection


class Journal:
    """An open journal of texts. Use as a context manager; one thread writes.

    Args:
        folder: Output folder of the run; it is made.

    Raises:
        MedclipError: CORRUPT for a file that is no journal.
    """

    def __init__(self, folder: Path) -> None:
        self._connection = open_journal(
            folder, _TABLES, "Remove it to begin again; all texts are asked for again then."
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def choice(self, slide: str) -> dict[str, Any] | None:
        """Return what was chosen of a slide; None where it was not chosen from yet."""
        row = self._connection.execute("select facts from choices where slide = ?", (slide,)).fetchone()
        return None if row is None else json.loads(row[0])

    def note_choice(self, slide: str, facts: dict[str, Any]) -> None:
        """Note the patches that were chosen of a slide."""
        with disk_errors(Path(JOURNAL)):
            self._connection.execute("insert or replace into choices values (?, ?)", (slide, text_of(facts)))

    def text(self, slide: str, number: int) -> dict[str, Any] | None:
        """Return what was noted of a chosen patch; None where it has no text yet."""
        row = self._connection.execute(
            "select facts from texts where slide = ? and number = ?", (slide, number)
        ).fetchone()
        return None if row is None else json.loads(row[0])

    def numbers(self, slide: str) -> set[int]:
        """Return the numbers of a slide's patches that have their text."""
        return {row[0] for row in self._connection.execute("select number from texts where slide = ?", (slide,))}

    def note_text(self, slide: str, number: int, facts: dict[str, Any]) -> None:
        """Note the text of a patch, or why there is none."""
        with disk_errors(Path(JOURNAL)):
            self._connection.execute("insert or replace into texts values (?, ?, ?)", (slide, number, text_of(facts)))

    def texts(self, slide: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the patches of a slide that have their text, by number."""
        rows = self._connection.execute("select number, facts from texts where slide = ? order by number", (slide,))
        for number, facts in rows.fetchall():
            yield number, json.loads(facts)


def text_of(facts: Any) -> str:
    """Write a value of JSON so that equal values are equal texts."""
    return json.dumps(facts, sort_keys=True, ensure_ascii=False)
