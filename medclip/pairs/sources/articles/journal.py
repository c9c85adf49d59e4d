"""What became of packages, until all have been read and the shards are written at once. SQLite, one commit each.

A run that is killed loses the packages that were being read, and no other. A package that was changed since, or of
which the list says something else, is read again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Self

from medclip.errors import Problem, Reason
from medclip.files.output import disk_errors
from medclip.pairs.journal import JOURNAL, open_journal, text_of
from medclip.pairs.sources.articles.packages import Package
from medclip.pairs.sources.articles.read_package import ReadFigure, ReadPackage, Reject

_TABLE = "create table if not exists packages (name text primary key, stamp text, facts text, images blob)"


class ArticleJournal:
    """An open journal. Use as a context manager; one thread writes.

    Args:
        folder: Folder of the run.

    Raises:
        MedclipError: CORRUPT for a file that is no journal.
    """

    def __init__(self, folder: Path) -> None:
        self._connection = open_journal(folder, _TABLE, "Remove its folder to begin again.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def is_read(self, package: Package) -> bool:
        """Return whether a package was read as it is now."""
        row = self._connection.execute("select stamp from packages where name = ?", (package.name,)).fetchone()
        return row is not None and row[0] == text_of(package.stamp)

    def note(self, package: Package, result: ReadPackage) -> None:
        """Note what became of a package."""
        facts = {
            "article": dict(result.article),
            "figures": [[dict(f.facts), f.sha256, len(f.image)] for f in result.figures],
            "rejects": [[r.figure, r.sha256, str(r.problem.reason), r.problem.sentence] for r in result.rejects],
        }
        images = b"".join(figure.image for figure in result.figures)
        values = package.name, text_of(package.stamp), text_of(facts), images
        with disk_errors(Path(JOURNAL)):
            self._connection.execute("insert or replace into packages values (?, ?, ?, ?)", values)

    def accession_id(self, package: Package) -> str:
        """Return the number of a package's article; "" where it could not be read."""
        query = "select json_extract(facts, '$.article.accession_id') from packages where name = ?"
        return self._connection.execute(query, (package.name,)).fetchone()[0] or ""

    def result(self, package: Package) -> ReadPackage:
        """Return what was noted of a package."""
        query = "select facts, images from packages where name = ?"
        text, images = self._connection.execute(query, (package.name,)).fetchone()
        facts, at = json.loads(text), 0
        figures: list[ReadFigure] = []
        for values, sha256, size in facts["figures"]:
            figures.append(ReadFigure(values, sha256, images[at : at + size]))
            at += size
        rejects = tuple(Reject(f, sha256, Problem(Reason(why), text)) for f, sha256, why, text in facts["rejects"])
        return ReadPackage(facts["article"], tuple(figures), rejects)
