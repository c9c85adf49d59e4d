"""The files of a run, as they are listed and looked at."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from medclip.errors import Problem, Reason
from medclip.files.discover import finished_stem, is_finished, is_unfinished
from medclip.files.readers.job_queue import Effort
from medclip.runs.ledger.database import BY_FILE, BY_STUDY, Database
from medclip.runs.rows import DONE, DONE_FOR_GOOD, LISTED, LOOKED_AT, KnownFile, Look
from medclip.sample import FileRef, Stamp

_AGAIN_FILES = 512
"""Files of one window that are looked at once more."""
_LATE = (
    "tie IN (SELECT tie FROM inputs WHERE tie IS NOT NULL "  # one NULL in the list, and nothing is "NOT IN" it
    "GROUP BY tie HAVING COUNT(DISTINCT window) > 1 OR MAX(waits))"
)
"""Files whose study has files in several windows: it is scored when all files are known."""
_SAME = (
    "NULLIF(sha256, '')",
    "instance",
    "IIF(inode, size || ' ' || mtime || ' ' || inode, NULL)",
)
"""By what a file is known again under another name; NULL is like nothing."""
_SELECT_INPUTS = "SELECT id, name, size, mtime, inode, window, cut, state, sha256, reason, sentence FROM inputs"


class InputRows:
    """Files by the windows that they are looked at in."""

    _db: Database
    settled: frozenset[int] = frozenset()
    """Files that were removed while chunks that hold them may be under way."""

    def register(
        self, refs: Sequence[FileRef], *, cut: bool = False, frontier: Any = None, added: bool = False
    ) -> list[KnownFile]:
        """Write down the files of a new window, all or none.

        Args:
            refs: The files; those that cannot be opened carry a problem.
            cut: Whether their folder goes on in other windows.
            frontier: Place in the walk up to which all files are listed now; None leaves it where it was.
            added: Whether they came later than those around them; such files are counted.
        """
        with self._db.transaction():
            self._go_on()
            window = self._next_window()
            self._db.executemany(
                "INSERT INTO inputs (name, size, mtime, inode, window, cut, reason, sentence) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(ref.name, *ref.stamp, window, cut, *_of_problem(ref.problem)) for ref in refs],
            )
            if frontier is not None:
                self._db.keep({"frontier": frontier})
            if added:
                self._db.keep({"added": (self._db.get("added") or 0) + len(refs)})
        return self.window(window)

    def known(self, names: Sequence[str]) -> dict[str, KnownFile]:
        """Return what is known of the files of these names."""
        marks = ", ".join("?" for _ in names)
        query = f"{_SELECT_INPUTS} WHERE name IN ({marks})"
        return {file.name: file for file in map(_known, self._db.execute(query, tuple(names)))}

    def names_below(self, prefix: str) -> list[str]:
        """Return the names that begin with a prefix such as "folder/", sorted."""
        query = "SELECT name FROM inputs WHERE name > ? AND name < ? ORDER BY name"
        return [row[0] for row in self._db.execute(query, (prefix, f"{prefix}\U0010ffff"))]

    def done_among(self, names: Iterable[str]) -> set[str]:
        """Return which files are done of those that are named without the folder of their study (16 characters)."""
        done: set[str] = set()
        rest = iter(names)
        while some := tuple(islice(rest, _AGAIN_FILES)):
            marks = ", ".join("?" for _ in some)
            query = f"SELECT substr(name, 18) FROM inputs WHERE state >= {DONE} AND substr(name, 18) IN ({marks})"  # noqa: S608
            done.update(row[0] for row in self._db.execute(query, some))
        return done

    def window(self, window: int) -> list[KnownFile]:
        """Return the files of a window, in the order they were listed."""
        return list(map(_known, self._db.execute(f"{_SELECT_INPUTS} WHERE window = ? ORDER BY id", (window,))))

    def open_windows(self) -> list[int]:
        """Return the windows with files that are neither done nor waiting for others of their study."""
        query = (
            f"SELECT DISTINCT window FROM inputs WHERE state < {DONE} AND NOT (tie IS NOT NULL AND {_LATE}) ORDER BY 1"  # noqa: S608
        )
        return [row[0] for row in self._db.execute(query)]

    def looked_at(self, looks: Iterable[Look]) -> None:
        """Write down what was learnt of files, all or none. Files that are done stay so."""
        with self._db.transaction():
            self._db.executemany(
                "UPDATE inputs SET size = ?, mtime = ?, inode = ?, sha256 = ?, format = ?, "  # noqa: S608 - our columns
                "instance = COALESCE(?, instance), reason = COALESCE(?, reason), "
                "sentence = COALESCE(?, sentence), state = MAX(state, ?), "
                f"{ADD_EFFORT} WHERE id = ?",
                [
                    (
                        *(*k.stamp, k.sha256, k.format, k.instance, *_of_problem(k.problem)),
                        *(LOOKED_AT, *effort_values(k.effort), k.id),
                    )
                    for k in looks
                ],
            )

    def tie(self, ties: Iterable[tuple[int, str, bool]]) -> None:
        """Write down which study each file belongs to, and whether it waits until all files are known."""
        with self._db.transaction():
            self._db.executemany(
                "UPDATE inputs SET tie = ?, waits = MAX(waits, ?) WHERE id = ?", [(t, w, i) for i, t, w in ties]
            )

    def tied_before(self, tie: str, window: int) -> bool:
        """Return whether an earlier window has files of a study."""
        query = "SELECT EXISTS (SELECT 1 FROM inputs WHERE tie = ? AND window < ?)"
        return bool(self._db.execute(query, (tie, window)).fetchone()[0])

    def late_ties(self) -> list[str]:
        """Return the studies that waited for all of their files and are not done, in the order of their first file."""
        query = (
            f"SELECT tie FROM inputs WHERE {_LATE} GROUP BY tie HAVING MIN(state) < {DONE_FOR_GOOD} "  # noqa: S608
            "ORDER BY MIN(name)"
        )
        return [row[0] for row in self._db.execute(query)]

    def files_of_tie(self, tie: str) -> list[KnownFile]:
        """Return the files of one study, by name."""
        return list(map(_known, self._db.execute(f"{_SELECT_INPUTS} WHERE tie = ? ORDER BY name", (tie,))))

    def open_again(self, files: Mapping[int, FileRef | None]) -> None:
        """Take back what is known of files, all or none: they are looked at as if they had just come, in new windows.

        Their rows go, and so do the scores of their studies, whose other files are scored once more: what a file holds
        now may belong to another study.

        Args:
            files: Numbers of the files, with what the walk says of them now; None for those that are gone, which keep
                why they could not be opened if they never could.
        """
        if not files:
            return
        with self._db.transaction():
            self._go_on()
            self._take_back(files)
            window = self._next_window()
            self._db.executemany(
                "UPDATE inputs SET window = ?, cut = 0, sha256 = NULL, tie = NULL, waits = 0, state = ?, "
                "reason = IIF(inode, NULL, reason), sentence = IIF(inode, NULL, sentence), attempts = attempts + 1 "
                "WHERE id = ?",
                [(window + index // _AGAIN_FILES, LISTED, number) for index, number in enumerate(files)],
            )
            self._db.executemany(
                "UPDATE inputs SET size = ?, mtime = ?, inode = ?, reason = ?, sentence = ? WHERE id = ?",
                [(*ref.stamp, *_of_problem(ref.problem), number) for number, ref in files.items() if ref is not None],
            )

    def _take_back(self, numbers: Iterable[int]) -> None:
        """Remove the rows of files and the scores of their studies, which are to be scored once more."""
        self._db.execute("CREATE TEMP TABLE again (id INTEGER PRIMARY KEY)")
        self._db.executemany("INSERT INTO again VALUES (?)", [(number,) for number in numbers])
        for table in BY_STUDY:
            self._db.execute(f"DELETE FROM {table} WHERE study IN (SELECT study FROM files WHERE row IN again)")  # noqa: S608
        for table in BY_FILE:
            self._db.execute(f"DELETE FROM {table} WHERE row IN again")  # noqa: S608 - names of our own tables
        study = "tie IN (SELECT tie FROM inputs WHERE id IN again)"
        self._db.execute(f"UPDATE inputs SET waits = 1, state = MIN(state, ?) WHERE {study}", (LOOKED_AT,))  # noqa: S608
        self._db.execute("DROP TABLE again")

    def unsettled(self) -> Iterator[KnownFile]:
        """Yield the files without an answer that stays: failed, not done, of studies to be scored, of no real name."""
        self._db.create_function("is_unfinished", 1, is_unfinished, deterministic=True)
        grows = f"SELECT tie FROM inputs WHERE {_LATE} GROUP BY tie HAVING MIN(state) < {DONE_FOR_GOOD}"  # noqa: S608
        query = (
            f"{_SELECT_INPUTS} WHERE state < {DONE} OR tie IN ({grows}) OR is_unfinished(name) "  # noqa: S608 - our own
            "OR id IN (SELECT row FROM files WHERE status = 'failed')"
        )
        return map(_known, self._db.execute(query))

    def settle(self, gone: Sequence[KnownFile]) -> None:
        """Remove files that are gone and that came under another name, all or none; others stay as they are.

        The same file has the same size, time and inode, the same bytes, the same SOP Instance UID, or the name that an
        unfinished one was to have. What is left of its study is scored once more.
        """
        if not gone:
            return
        with self._db.transaction():
            self._db.execute("CREATE TEMP TABLE gone (id INTEGER PRIMARY KEY)")
            self._db.executemany("INSERT INTO gone VALUES (?)", [(file.id,) for file in gone])
            settled = {file.id for file in gone if self._has_come(file)}
            for same in _SAME:
                settled.update(
                    number
                    for (number,) in self._db.execute(
                        f"SELECT id FROM inputs WHERE id IN gone AND size > 0 AND {same} IN (SELECT {same} FROM inputs "  # noqa: S608
                        f"WHERE id NOT IN gone AND {same} IN (SELECT {same} FROM inputs WHERE id IN gone))"
                    )
                )
            self._db.execute("DROP TABLE gone")
            if settled:
                self._go_on()
                self._take_back(settled)
                self._db.executemany("DELETE FROM inputs WHERE id = ?", [(number,) for number in settled])
        self.settled |= settled

    def _has_come(self, file: KnownFile) -> bool:
        """Return whether there is a file that has the name which an unfinished one was to have."""
        if not is_unfinished(file.name):
            return False
        stem = finished_stem(file.name)
        query = "SELECT name FROM inputs WHERE name >= ? AND name < ? AND id NOT IN gone"
        return any(is_finished(file.name, name) for (name,) in self._db.execute(query, (stem, f"{stem}\U0010ffff")))

    def _next_window(self) -> int:
        return self._db.execute("SELECT COALESCE(MAX(window), -1) + 1 FROM inputs").fetchone()[0]

    def _go_on(self) -> None:
        """A run with files that are not done is not finished, also if it was."""
        self._db.execute("DELETE FROM meta WHERE key = 'finished'")

    def failed_ids(self, reason: str | None) -> list[int]:
        """Return the files that failed, all or for one reason."""
        query = "SELECT row FROM files WHERE status = 'failed' AND (reason = ? OR ? IS NULL) ORDER BY row"
        return [row[0] for row in self._db.execute(query, (reason, reason))]

    def digest(self) -> str:
        """Hash names, sizes and hashes of all files, in the order of their names."""
        state = hashlib.sha256()
        for name, size, sha256 in self._db.execute("SELECT name, size, COALESCE(sha256, '') FROM inputs ORDER BY name"):
            state.update(f"{name}\0{size}\0{sha256}\n".encode())
        return state.hexdigest()

    def num_listed(self) -> int:
        """Count the files that are known so far."""
        return self._db.execute("SELECT COUNT(*) FROM inputs").fetchone()[0]

    def num_files(self) -> int:
        """Count the files among them that the file system knew."""
        return self._db.execute("SELECT COUNT(*) FROM inputs WHERE mtime != 0").fetchone()[0]

    def num_tried_again(self) -> int:
        """Count the files that were read more than once: after a crash, an error of their drive, or by a later call."""
        return self._db.execute("SELECT COUNT(*) FROM inputs WHERE attempts > 1").fetchone()[0]

    def work_by_worker(self) -> dict[str, tuple[int, float]]:
        """Return how many files each worker read last, and for how many seconds they were read in all."""
        query = "SELECT worker, COUNT(*), SUM(seconds) FROM inputs WHERE worker IS NOT NULL GROUP BY worker ORDER BY 1"
        return {worker: (num, seconds) for worker, num, seconds in self._db.execute(query)}

    def num_done(self) -> int:
        """Count the files that are not read again. Rows do not tell: those of studies that grow stay meanwhile."""
        return self._db.execute(f"SELECT COUNT(*) FROM inputs WHERE state >= {DONE}").fetchone()[0]  # noqa: S608


ADD_EFFORT = "attempts = attempts + ?, seconds = seconds + ?, worker = COALESCE(?, worker)"
"""Sets what `effort_values` returns."""


def effort_values(effort: Effort) -> tuple[int, float, str | None]:
    """Return what an effort adds to a file."""
    return effort.num_retries, effort.seconds, effort.worker or None


def _of_problem(problem: Problem | None) -> tuple[str | None, str | None]:
    return (None, None) if problem is None else (str(problem.reason), problem.sentence)


def _known(values: tuple[Any, ...]) -> KnownFile:
    key, name, size, mtime, inode, window, cut, state, sha256, reason, sentence = values
    problem = None if reason is None else Problem(Reason(reason), sentence)
    return KnownFile(key, name, Stamp(size, mtime, inode), window, bool(cut), state, sha256, problem)
