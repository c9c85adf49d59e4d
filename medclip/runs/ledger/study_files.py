"""Which studies have their results in the forms of other systems: a row goes when its study is scored anew.

A file without a row may be of answers that are others by now, or may not have been finished: it is written again.
"""

from __future__ import annotations

from collections.abc import Iterable

from medclip.runs.ledger.database import Database


class StudyFiles:
    """The part of a ledger that knows what was written of studies for other systems."""

    _db: Database

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
