"""Read rows, scores and vectors: all of them for the tables, study by study for reports and exports."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

from medclip.runs.ledger.database import COMPUTED, Database, column_name
from medclip.runs.rows import NAMED_FILES, ExamRow, FileRow, MapRow, Ranking, ScoreRow, Thumbnail, map_name, note_of
from medclip.sample import Kind

_Named = tuple[str, int, str | None]
"""Of a study: its files as JSON, their number, and its note."""

_SCORE_NAMES = ", ".join(column_name(field.name) for field in fields(ScoreRow) if field.name not in COMPUTED)
_NUMBERED = {"row": "n.row", "unit": "u.row", "copy_of": "c.row"}
_FILE_NAMES = ", ".join(_NUMBERED.get(field.name, f"f.{column_name(field.name)}") for field in fields(FileRow))
_SELECT_FILES = (
    f"SELECT {_FILE_NAMES} FROM files f "  # noqa: S608 - names of our own fields
    "JOIN numbers n ON n.id = f.row LEFT JOIN numbers u ON u.id = f.unit LEFT JOIN numbers c ON c.id = f.copy_of"
)
_FIRST = (
    "(SELECT study AS s, MIN(n.row) AS first FROM files f JOIN numbers n ON n.id = f.row "
    "WHERE status = 'scored' GROUP BY study)"
)
_EXAM_NAMES = ", ".join(
    {"row": "n.row", "file": "f.path"}.get(field.name, f"e.{column_name(field.name)}") for field in fields(ExamRow)
)
_SELECT_EXAMS = (
    f"SELECT {_EXAM_NAMES} FROM exams e LEFT JOIN files f ON f.row = e.row LEFT JOIN numbers n ON n.id = e.row"  # noqa: S608 - names of our own fields
)
_MAP_NAMES = ", ".join(
    {"row": "n.row", "file": "f.path", "map": "''"}.get(field.name, f"m.{column_name(field.name)}")
    for field in fields(MapRow)
)
_SELECT_MAPS = f"SELECT m.row, {_MAP_NAMES} FROM maps m JOIN files f ON f.row = m.row JOIN numbers n ON n.id = m.row"  # noqa: S608 - names of our own fields
_SELECT_UNITS = (
    "SELECT n.row, f.study, u.grouped, u.patient, f.modality, f.kind, u.sha256, u.features, f.laterality, f.view, "
    "u.body_part, f.headers, u.burned_in, u.stranger, i.row, u.look FROM units u JOIN files f ON f.row = u.row "
    "JOIN numbers n ON n.id = u.row LEFT JOIN numbers i ON i.id = u.instead_of"
)
_UNIT_ORDER = (
    "SELECT u.row, MIN(n.row) OVER (PARTITION BY f.study) AS first FROM units u JOIN files f ON f.row = u.row "
    "JOIN numbers n ON n.id = u.row WHERE (f.status = 'scored') = ?"
)
_RANKED_SCORES = "scores s, json_each(?2) c WHERE s.task = ?1 AND s.class = c.value"
_RANKED = (
    "CASE json_array_length(?2) WHEN 1 THEN MAX(s.probability) ELSE SUM(s.probability * c.key) / SUM(s.probability) END"
)


class ResultReader:
    """The half of a ledger that reads results."""

    _db: Database

    def units(self, *, by_study: bool = False, failed: bool = False) -> Iterator[tuple[Any, ...]]:
        """Yield what is kept of units, beside what their first file's row says: see `medclip.runs.units.unit_rows`.

        Args:
            by_study: Whether units of a study come side by side, studies by their first file; else in the order of
                files.
            failed: Whether units without vectors are yielded instead.
        """
        ordered = f"{_UNIT_ORDER} ORDER BY {'first, n.row' if by_study else 'n.row'}"
        for number, _ in self._db.execute(ordered, (not failed,)):  # light: no vector is sorted
            yield from self._db.execute(f"{_SELECT_UNITS} WHERE u.row = ?", (number,))

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

    def maps(self) -> Iterator[MapRow]:
        """Yield every row of a map, in the order of files."""
        return (row for _, row in self._maps(None))

    def map_images(self, study: str | None = None) -> Iterator[tuple[MapRow, bytes, bytes]]:
        """Yield rows of maps with their PNG and their outline, in the order of files; all, or those of a study."""
        query = "SELECT png, outline FROM map_images WHERE row = ? AND task = ? AND class = ?"
        for number, row in self._maps(study):  # light: no image is sorted
            png, outline = self._db.execute(query, (number, row.task, row.class_)).fetchone()
            yield row, png, outline

    def _maps(self, study: str | None) -> Iterator[tuple[int, MapRow]]:
        """Yield rows of maps with the number that the ledger has of their file."""
        where, of = ("", ()) if study is None else (" WHERE m.study = ?", (study,))
        for number, *values in self._db.execute(f"{_SELECT_MAPS}{where} ORDER BY n.row, m.place", of):
            row = MapRow(*values)
            yield number, replace(row, map=map_name(row.row, row.task, row.class_))

    def files_of(self, study: str, status: str = "scored") -> list[FileRow]:
        """Return the files of one study that ended alike."""
        query = f"{_SELECT_FILES} WHERE f.study = ? AND f.status = ? ORDER BY n.row"
        return list(map(_file_row, self._db.execute(query, (study, status))))

    def studies(self, limit: int, by: Ranking | None = None) -> list[str]:
        """Return the keys of the first scored studies.

        Args:
            limit: Largest number of studies.
            by: Order of the studies, the highest value first and studies without it last; equal ones, and all without a
                choice, in the order of their first files.
        """
        query = (
            "SELECT study FROM files f JOIN numbers n ON n.id = f.row WHERE status = 'scored' AND study IN "  # noqa: S608
            "(SELECT study FROM scores UNION SELECT study FROM maps) GROUP BY study ORDER BY "
            f"(SELECT {_RANKED} FROM {_RANKED_SCORES} AND s.study = f.study) DESC, MIN(n.row) LIMIT ?3"
        )
        return [row[0] for row in self._db.execute(query, (*_ranked_by(by), limit))]

    def spread_by(self, by: Ranking, bins: int) -> list[int]:
        """Count the studies by what they are sorted by, in equal bins over its whole range."""
        query = (
            "SELECT MIN(CAST(value / ?3 * ?4 AS INTEGER), ?4 - 1), COUNT(*) FROM "  # noqa: S608 - our own names
            f"(SELECT {_RANKED} AS value FROM {_RANKED_SCORES} GROUP BY s.study) GROUP BY 1"
        )
        counts = [0] * bins
        for place, num in self._db.execute(query, (*_ranked_by(by), by.highest, bins)):
            counts[place] = num
        return counts

    def spread(self, bins: int) -> dict[tuple[str, str], list[int]]:
        """Count the studies of each task and class by probability, in equal bins from 0 to 1."""
        query = (
            "SELECT task, class, MIN(CAST(probability * ?1 AS INTEGER), ?1 - 1), COUNT(*) FROM scores GROUP BY 1, 2, 3"
        )
        counts: dict[tuple[str, str], list[int]] = {}
        for task, name, place, num in self._db.execute(query, (bins,)):
            counts.setdefault((task, name), [0] * bins)[place] = num
        return counts

    def cautions(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """Return why answers of each task and class are grey, of some studies at least; of others there is no key."""
        query = "SELECT DISTINCT task, class, caution FROM scores WHERE caution IS NOT NULL ORDER BY 1, 2, 3"
        cautions: dict[tuple[str, str], tuple[str, ...]] = {}
        for task, name, caution in self._db.execute(query):
            cautions[task, name] = (*cautions.get((task, name), ()), caution)
        return cautions

    def num_from(self, score: tuple[str, str], least: float) -> int:
        """Count the studies with at least a probability of a task's class."""
        query = "SELECT COUNT(*) FROM scores WHERE task = ? AND class = ? AND probability >= ?"
        return self._db.execute(query, (*score, least)).fetchone()[0]

    def thumbnail(self, row: int) -> Thumbnail | None:
        """Return what is kept beside the file of a number."""
        query = "SELECT t.* FROM thumbnails t JOIN numbers n ON n.id = t.row WHERE n.row = ?"
        values = self._db.execute(query, (row,)).fetchone()
        return None if values is None else Thumbnail(row, values[1], bool(values[2]))

    def num_bytes(self, tables: Sequence[str]) -> int:
        """Return how many bytes the images and vectors take that some tables hold."""
        columns = {"thumbnails": "thumbnail", "units": "features"}
        queries = (f"SELECT COALESCE(SUM(LENGTH({columns[table]})), 0) FROM {table}" for table in tables)  # noqa: S608 - names of our own
        return sum(self._db.execute(query).fetchone()[0] for query in queries)

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

    def kinds_scored(self) -> dict[str, set[Kind]]:
        """Return by modality the kinds of the units that were scored: images, signals, volumes."""
        query = "SELECT DISTINCT modality, kind FROM files WHERE status = 'scored' AND kind IS NOT NULL"
        kinds: dict[str, set[Kind]] = {}
        for modality, kind in self._db.execute(query):
            kinds.setdefault(str(modality), set()).add(Kind(kind))
        return kinds

    def far_counts(self) -> list[tuple[str, str, int, int, int]]:
        """Count scored images whose distance to what the pack was measured on is known.

        Returns:
            By modality and maker of the device: both names ("" for a maker that no header names), images, those of
            them beyond 1, and studies.
        """
        query = (
            "SELECT modality, COALESCE(json_extract(headers, '$.manufacturer'), ''), COUNT(*), SUM(home_distance > 1), "
            "COUNT(DISTINCT study) FROM files WHERE status = 'scored' AND home_distance IS NOT NULL "
            "GROUP BY 1, 2 ORDER BY 1, 2"
        )
        return self._db.execute(query).fetchall()

    def thumbnails(self) -> Iterator[tuple[int, bytes]]:
        """Yield the number of a file and the small image that is kept beside it, where it is shown."""
        query = (
            "SELECT n.row, t.thumbnail FROM thumbnails t JOIN numbers n ON n.id = t.row "
            "WHERE LENGTH(t.thumbnail) ORDER BY 1"
        )
        yield from self._db.execute(query)


def _file_row(values: tuple[Any, ...]) -> FileRow:
    return FileRow(*values)


def _score_row(values: tuple[Any, ...], named: _Named) -> ScoreRow:
    return ScoreRow(*values, files=named[0], num_files=named[1], note=named[2])


def _ranked_by(by: Ranking | None) -> tuple[str | None, str]:
    return (None, "[]") if by is None else (by.task, json.dumps(by.classes))
