"""The tables of a ledger: made of the fields of the rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields

from medclip.runs.ledger.database import Database
from medclip.runs.rows import ExamRow, FileRow, ScoreRow, Thumbnail, UnitRow

FORMAT = 11
"""Raised when columns change."""
BY_FILE = ("files", "thumbnails", "units")
"""Tables whose rows have the number of a file."""
BY_STUDY = ("scores", "exams", "results")
"""Tables whose rows have the key of a study: they go when it is scored anew."""
PLACED = ("scores", "exams")
"""Those of them whose rows have a place in their study."""
COMPUTED = ("files", "num_files", "note")
NAMED = ("file",)


def make_tables(db: Database) -> None:
    """Make the tables that are not there.

    Raises:
        MedclipError: As `Database.transaction`.
    """
    with db.transaction():
        for statement in (
            "meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
            "inputs (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, size INTEGER, mtime INTEGER, "
            "inode INTEGER, window INTEGER NOT NULL, cut INTEGER NOT NULL, sha256 TEXT, format TEXT, "
            "reason TEXT, sentence TEXT, tie TEXT, waits INTEGER NOT NULL DEFAULT 0, "
            "state INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 1, "
            "seconds REAL NOT NULL DEFAULT 0, worker TEXT)",
            f"files ({_columns(FileRow, key='row')})",
            f"scores (place INTEGER NOT NULL, {_columns(ScoreRow, without=COMPUTED)})",
            f"exams (place INTEGER NOT NULL, {_columns(ExamRow, without=NAMED)})",
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
