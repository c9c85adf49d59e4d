"""Remove what a run has beside its tables, once nobody needs it: small images, vectors, what the ledger knows.

files.parquet, scores.parquet and run.json stay. Of the ledger its frame stays, without a row: it is by its ledger that
an output folder is known, so that it is never taken for a folder of images, and the same command is refused with a
sentence instead of beginning anew. Removed is what the file system removes; copies and backups are others' business.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medclip.embeddings.write_embeddings import TABLES as EMBEDDING_TABLES
from medclip.embeddings.write_embeddings import THUMBNAILS, begin_embeddings, remove_thumbnails
from medclip.errors import MedclipError, Reason
from medclip.exit_codes import ExitCode
from medclip.files.discover import LEDGER
from medclip.files.output import disk_errors, in_use
from medclip.result import Result
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.outputs.results import PARTS, REPORT_IMAGES, RUN, hashes_of, report_files
from medclip.runs.planning.identity import SHARD
from medclip.wording import list_of

KINDS = ("thumbnails", "ledger", "embeddings")
_ROWS = {"thumbnails": ("thumbnails",), "embeddings": ("units",), "ledger": ()}
"""Tables of the ledger that hold them; of the ledger itself, all."""
_AGE = re.compile(r"(\d+)\s*([hdw])")
_SECONDS = {"h": 3600, "d": 86400, "w": 7 * 86400}
PURGED = "purged"
"""What a ledger remembers of what was removed."""


@dataclass(frozen=True)
class PurgedRun:
    """A run, and what was or would be removed of it."""

    folder: Path
    age_days: float
    """Since it was finished, or last written to."""
    size_bytes: dict[str, int]
    """Of each kind that it has, about: what lies in the ledger shares its file."""
    kept: str = ""
    """Why nothing is removed; empty where it is."""


@dataclass(frozen=True, repr=False)
class Purged(Result):
    """What was removed, or would be."""

    runs: tuple[PurgedRun, ...]
    is_done: bool
    """Whether it was removed; without `yes` it is only listed."""

    @property
    def exit_code(self) -> int:
        """3 where a run that was meant is kept, 0 otherwise."""
        return ExitCode.SOME_FAILED if any(run.kept for run in self.runs) else ExitCode.COMPLETE

    @property
    def size_bytes(self) -> int:
        """Bytes of all runs of which something is removed."""
        return sum(sum(run.size_bytes.values()) for run in self.runs if not run.kept)

    def _facts(self) -> dict[str, object]:
        return {
            "runs": sum(not run.kept for run in self.runs),
            "kept": sum(bool(run.kept) for run in self.runs),
            "megabytes": round(self.size_bytes / 1e6, 1),
            "state": "removed" if self.is_done else "nothing was removed; yes=True removes it",
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return self.to_dict()["runs"][:most]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        runs = [
            {"folder": str(run.folder), "age_days": round(run.age_days, 2), **run.size_bytes, "kept": run.kept}
            for run in self.runs
        ]
        return {"done": self.is_done, "size_bytes": self.size_bytes, "runs": runs}


def purge_runs(folder: Path, kinds: tuple[str, ...], older_than_s: float, *, yes: bool) -> Purged:
    """Remove some kinds of what runs at or below a folder have; without `yes`, or without a kind, list what could be.

    Raises:
        MedclipError: WRONG_USE for a folder that holds a home folder; MISSING_FILE for one without a run.
    """
    _refuse_broad(folder)
    runs = sorted(run_folders(folder))
    if not runs:
        raise MedclipError(Reason.MISSING_FILE, "there is no run here.", where=folder, hint="Check the path.")
    purged = []
    for run in runs:
        size_bytes = {kind: size for kind in kinds or KINDS if (size := _size(run, kind))}
        one = PurgedRun(run, _age_s(run) / 86400, size_bytes)
        if one.age_days * 86400 < older_than_s or not size_bytes:
            continue
        purged.append(replace(one, kept=_purge(run, tuple(size_bytes), yes=yes)))
    return Purged(tuple(purged), yes)


def refuse_purged(ledger: Ledger, folder: Path) -> None:
    """Refuse to go on with a run whose ledger or vectors were removed.

    Raises:
        MedclipError: OUTPUT_IN_USE.
    """
    removed = [kind for kind in ledger.get(PURGED) or () if kind != "thumbnails"]
    if removed:
        raise in_use(
            folder,
            f"medclip runs purge removed what this run goes on with ({list_of(removed)})",
            "Name another folder; the tables of this one stay what they are.",
        )


def parse_age(text: str) -> float:
    """Read an age as the command line takes it, in seconds.

    Raises:
        MedclipError: WRONG_USE.

    Example:
        >>> parse_age("30d") == 30 * 86400
        True
    """
    match = _AGE.fullmatch(text.strip())
    if match is None:
        raise MedclipError(Reason.WRONG_USE, f"an age is a number of hours, days or weeks such as 30d, not {text!r}.")
    return float(match[1]) * _SECONDS[match[2]]


def _refuse_broad(folder: Path) -> None:
    """Refuse the root of the file system, a home folder and what holds one: runs of others lie below them."""
    place = folder.resolve()
    if (place == Path(place.anchor) or Path.home().resolve().is_relative_to(place)) and not (place / LEDGER).exists():
        raise MedclipError(
            Reason.WRONG_USE,
            "runs of anybody may lie below this folder, which holds a home folder or is the root of a file system.",
            where=folder,
            hint="Name the folder of the runs.",
        )


def run_folders(folder: Path) -> Iterator[Path]:
    """Yield the folders at or below one that hold a run; links are not followed."""
    for here, below, names in os.walk(folder):
        if LEDGER in names:
            yield Path(here)
            below.clear()


def _age_s(run: Path) -> float:
    written = [(run / name).stat().st_mtime for name in (RUN, LEDGER) if (run / name).exists()]
    return max(0.0, time.time() - written[0])


def _size(run: Path, kind: str) -> int:
    """Return about how many bytes a run has of a kind; 0 where it has none, and of what was removed before."""
    try:
        with Ledger(run, create=False) as ledger:
            if kind in (ledger.get(PURGED) or ()) or "ledger" in (ledger.get(PURGED) or ()):
                return 0
            rows = ledger.num_bytes(_ROWS[kind])
    except MedclipError:  # of another version, or none of ours: it is kept, and says why
        rows = 0
    if kind == "ledger":
        return (run / LEDGER).stat().st_size
    return rows + sum(path.stat().st_size for path in _files(run, kind) if path.is_file())


def _files(run: Path, kind: str) -> list[Path]:
    if kind == "embeddings":
        return [run / name for name in EMBEDDING_TABLES if (run / name).is_file()]
    if kind == "thumbnails":
        images = [path for path in (run / REPORT_IMAGES).rglob("*") if path.is_file()]
        return [*images, *(run / name for name in report_files(run))]
    return []


def _purge(run: Path, kinds: tuple[str, ...], *, yes: bool) -> str:
    """Remove some kinds of a run; return why they are kept, or nothing."""
    try:
        with Ledger(run) if yes else Ledger(run, create=False) as ledger:
            finished = ledger.get("finished")
            if finished is None:
                return "the run was not finished: its rows are nowhere else"
            if ledger.get(SHARD) is not None:  # it has no tables, and what it is merged into needs all of it
                return "it is a shard, whose rows are nowhere else; once it is merged, delete its folder"
            if yes:
                with disk_errors(run):
                    _remove(run, kinds, ledger, is_whole=finished == hashes_of(run))
    except MedclipError as error:
        if error.reason in (Reason.BUSY, Reason.OUTPUT_IN_USE, Reason.PERMISSION_DENIED):
            return error.message
        raise
    return ""


def _remove(run: Path, kinds: tuple[str, ...], ledger: Ledger, *, is_whole: bool) -> None:
    purged = {*(ledger.get(PURGED) or ()), *kinds}
    ledger.remember({PURGED: sorted(purged)})  # first: who is killed here leaves a run that nobody goes on with
    if "embeddings" in kinds:
        begin_embeddings(run)  # the folder stays known for what it was, and says that it is not complete
    for kind in kinds:
        for path in _files(run, kind):
            path.unlink(missing_ok=True)
    if "thumbnails" in kinds:
        shutil.rmtree(run / REPORT_IMAGES, ignore_errors=True)
        if "embeddings" not in purged and (run / THUMBNAILS).is_file():
            remove_thumbnails(run)
    shutil.rmtree(run / PARTS, ignore_errors=True)
    tables = None if "ledger" in kinds else [table for kind in kinds for table in _ROWS[kind]]
    ledger.remove_rows(tables)
    ledger.remember({"report": None, "report_images": False, **({"finished": hashes_of(run)} if is_whole else {})})
