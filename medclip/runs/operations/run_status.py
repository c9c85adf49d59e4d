"""How far a run is: read from its ledger, also while it runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.locks import is_locked
from medclip.result import Result
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.ledger.result_writer import EXPECTED, HALVED, PACE
from medclip.runs.operations.purge import PURGED
from medclip.runs.outputs.results import EMBED, embedded_counts
from medclip.wording import duration, figure, list_of

FINISHED, RUNNING, STOPPED = "finished", "running", "stopped"


@dataclass(frozen=True, repr=False)
class RunStatus(Result):
    """How far a run is."""

    folder: Path
    """Its output folder."""
    state: str
    """finished, running, or stopped: the same command goes on."""
    num_listed: int
    """Files that are known so far; a run lists files while it scores others."""
    counts: dict[str, int]
    """files (that have their row), scored (of a run of `medclip embed`: embedded), skipped, failed, studies."""
    reasons: tuple[tuple[str, str, int], ...]
    """Status, reason and number of the files that were not scored, the most frequent first."""
    num_expected: int | None = None
    """Files in all; None while nobody has counted them to the end."""
    num_tried_again: int = 0
    """Files that were read more than once: after a crash, an error of their drive, or by a later call."""
    num_halved: int = 0
    """Batches of images that the memory did not hold, so that halves of them were computed."""
    workers: tuple[tuple[str, int, float], ...] = ()
    """Each reading process, with how many files it read last, and for how many seconds they were read."""
    files_per_second: float | None = None
    """Over the last minutes of a run that goes on; None for one that does not."""
    seconds_left: float | None = None
    """How long the rest takes at that rate, results and report apart."""
    purged: tuple[str, ...] = ()
    """What `medclip runs purge` removed; without the ledger there is nothing here to count."""

    @property
    def exit_code(self) -> int:
        """0 finished, 3 finished and some files failed, 4 stopped, 5 running."""
        if self.state == FINISHED:
            return 3 if self.counts["failed"] else 0
        return 5 if self.state == RUNNING else 4

    @property
    def ended(self) -> str:
        """How the files ended, in words."""
        return ", ".join(f"{n} {status}" for status, n in self.counts.items() if status not in ("files", "studies"))

    @property
    def pace(self) -> str | None:
        """How fast it goes and how long it will take, in words; None for a run that does not go on."""
        if self.files_per_second is None:
            return None
        rate = f"{figure(self.files_per_second)} files per second"
        if self.seconds_left is None:
            return f"{rate}; how many files are left is not known yet"
        return f"{rate}; about {duration(self.seconds_left)} left before the results are written"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        reasons = [{"status": status, "reason": reason, "files": n} for status, reason, n in self.reasons]
        return {
            "folder": str(self.folder),
            "state": self.state,
            "listed": self.num_listed,
            **self.counts,
            "reasons": reasons,
            "expected": self.num_expected,
            "tried_again": self.num_tried_again,
            "halved": self.num_halved,
            "workers": [{"worker": name, "files": n, "seconds": round(s, 3)} for name, n, s in self.workers],
            "files_per_second": self.files_per_second,
            "seconds_left": self.seconds_left,
            "purged": list(self.purged),
            "exit_code": self.exit_code,
        }

    def _facts(self) -> dict[str, object]:
        counts = self.counts
        return {
            "state": self.state,
            "files": f"{counts['files']} of {self.num_listed} listed so far have their row",
            "ended": self.ended,
            **({} if self.pace is None else {"pace": self.pace}),
            "studies": counts["studies"],
            **({"purged": list_of(self.purged)} if self.purged else {}),
            "folder": self.folder,
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return self.to_dict()["reasons"][:most]


def read_status(folder: str | Path) -> RunStatus:
    """Read how far a run of `medclip score` or `medclip embed` is.

    Nothing is computed, and a run that goes on is not disturbed.

    Args:
        folder: Folder that was given as `out`.

    Raises:
        MedclipError: MISSING_FILE where the folder holds no run; OUTPUT_IN_USE for the ledger of another version.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        raise MedclipError(Reason.MISSING_FILE, "this folder does not exist.", where=folder, hint="Check the path.")
    running = is_locked(folder)
    with Ledger(folder, create=False) as ledger:
        finished = ledger.get("finished") is not None
        reasons = [
            (status, reason, n)
            for status in ("failed", "skipped")
            for reason, n in ledger.counts_by("reason", status).items()
        ]
        identity = ledger.get("identity") or {}
        counts = ledger.counts()
        rate, expected = read_pace(ledger.get(PACE)) if running else None, ledger.get(EXPECTED)
        seconds_left = None
        if rate and expected is not None:
            seconds_left = max(0, expected - ledger.num_done()) / rate
        if identity.get("command") == EMBED:
            counts = embedded_counts(counts)
        return RunStatus(
            folder,
            RUNNING if running else FINISHED if finished else STOPPED,
            ledger.num_listed(),
            counts,
            tuple(reasons),
            expected,
            ledger.num_tried_again(),
            ledger.get(HALVED) or 0,
            tuple((worker, num, seconds) for worker, (num, seconds) in ledger.work_by_worker().items()),
            rate,
            seconds_left,
            tuple(ledger.get(PURGED) or ()),
        )


def read_pace(moments: Sequence[Sequence[float]] | None) -> float | None:
    """Return the files per second of the moments that a ledger remembers; None where there were no two of them.

    The time before the first rows counts only until there are others: it is mostly that of the start, which loads the
    model and comes once.

    Example:
        >>> read_pace([(1000.0, 0), (1010.0, 50)])
        5.0
        >>> read_pace([(1000.0, 0), (1010.0, 50), (1015.0, 150)])
        20.0
    """
    if not moments or len(moments) < 2:
        return None
    has_started = len(moments) > 2 and moments[0][1] == 0
    (began_at, before), (last_at, done) = moments[1 if has_started else 0], moments[-1]
    seconds = last_at - began_at
    return (done - before) / seconds if seconds > 0 else None
