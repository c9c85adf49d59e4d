"""Whoever is told how a run goes on, beside the person at the terminal: its log and its metrics.

`watch_run` stands around a whole call, so that a refusal before the first file is an event, too; `conduct` tells it of
what happens in between. Nothing it writes is part of what the run is: tables and report are the same with and without.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Status
from medclip.exit_codes import ExitCode, after, exit_code
from medclip.runs.operations.event_log import EventLog
from medclip.runs.operations.metrics_file import SUFFIX, Metric, check_metrics_file, write_metrics
from medclip.runs.operations.work_seconds import WorkReport, WorkSeconds
from medclip.runs.rows import FileRow

SECONDS = 10.0
"""Between two events of progress, and two writings of the metrics."""


class RunWatch:
    """Told of a run by whoever conducts it.

    Args:
        command: The verb.
        files: Files that are written: those that end in .prom have metrics, others events as JSON lines.
        clock: Function that returns seconds, for what lies between.
        now: Function that returns seconds since 1970.

    Raises:
        MedclipError: For a file that cannot be written.
    """

    def __init__(
        self,
        command: str = "run",
        files: Sequence[Path] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._command, self._clock, self._now = command, clock, now
        self.files = tuple(files)
        """What it writes."""
        self._metrics = [file for file in files if file.suffix == SUFFIX]
        for file in self._metrics:
            check_metrics_file(file)
        self._logs = [EventLog(file) for file in files if file.suffix != SUFFIX]
        self.work = WorkSeconds(clock)
        self.counted: Callable[[], Mapping[str, float]] = dict
        """Returns seconds of work that others count: a reading pool, and the ledger."""
        self._begun, self._begun_at, self._told = clock(), now(), clock()
        self._facts: dict[str, Any] = {}
        self._counts: dict[str, int] = {"files": 0, "studies": 0}
        self._total = 0
        self._processed: Counter[tuple[str, str]] = Counter()
        self._exit: ExitCode | None = None
        self._is_preview = False

    def started(self, facts: Mapping[str, Any], counts: Mapping[str, int], total: int) -> None:
        """Take note that files are read from now on.

        Args:
            facts: Facts of what computes: model, device, back-end, reading processes. No path.
            counts: Numbers of files that have their row already, and of scored studies.
            total: Number of files, as far as they are counted.
        """
        self._facts, self._counts, self._total = dict(facts), dict(counts), total
        self._event("run_started", **self._facts, files_done=counts["files"], files_total=total)
        self._write_metrics()

    def committed(self, files: tuple[FileRow, ...], counts: Mapping[str, int], total: int) -> None:
        """Take note of rows that were committed.

        Args:
            files: The rows.
            counts: Numbers of all files with a row, and of scored studies.
            total: Number of files, as far as they are counted.
        """
        self._processed.update((row.status, row.reason or "") for row in files)
        self._counts, self._total = dict(counts), total
        if self._clock() - self._told >= SECONDS:
            self._told = self._clock()
            self._event("progress", **self._state())
            self._write_metrics()

    def wrote(self, counts: Mapping[str, int], *, already: bool) -> None:
        """Take note that the results are written.

        Args:
            counts: Numbers of all files, by status, and of studies.
            already: Whether they had been written before, and nothing was computed.
        """
        self._counts, self._total = dict(counts), counts["files"]
        self._facts["already_finished"] = already

    def previewed(self, counts: Mapping[str, int]) -> None:
        """Take note that the files were looked at, and none read.

        Args:
            counts: Numbers of files, by how they would end.
        """
        self._total, self._is_preview = counts["files"], True
        self._counts = {**self._counts, "failed": counts["failed"]}

    def report(self) -> WorkReport:
        """Return where the time went so far."""
        return self.work.report(self.counted())

    def end(self, error: BaseException | None = None) -> None:
        """Take note that the call ended, in an error or not."""
        self._exit = _exit_of(error, self._counts)
        reason = str(error.reason) if isinstance(error, MedclipError) else None if error is None else "interrupted"
        if error is not None and self._exit is ExitCode.FAULT:
            reason = type(error).__name__
        self._event(
            "run_ended",
            exit_code=int(self._exit),
            error=reason,
            dry_run=self._is_preview,
            already_finished=bool(self._facts.get("already_finished")),
            **self._state(),
            work=self.report().to_json(),
        )
        self._write_metrics()
        while self._logs:
            self._logs.pop().close()

    def _state(self) -> dict[str, Any]:
        seconds = self._clock() - self._begun
        reasons: dict[str, dict[str, int]] = {str(status): {} for status in (Status.FAILED, Status.SKIPPED)}
        for (status, reason), num in sorted(self._processed.items()):
            if reason:
                reasons.setdefault(status, {})[reason] = num
        num = sum(self._processed.values())
        return {
            "files_done": self._counts["files"],
            "files_total": max(self._total, self._counts["files"]),
            "studies": self._counts["studies"],
            "processed": self._by_status(),
            "reasons": reasons,
            "seconds": round(seconds, 3),
            "files_per_second": round(num / seconds, 3) if seconds > 0 else 0.0,
        }

    def _by_status(self) -> dict[str, int]:
        counts = dict.fromkeys(map(str, Status), 0)
        for (status, _), num in self._processed.items():
            counts[status] += num
        return counts

    def _event(self, event: str, **values: Any) -> None:
        for log in self._logs:
            log.write(event, command=self._command, **values)

    def _write_metrics(self) -> None:
        try:
            for file in self._metrics:
                write_metrics(file, self._as_metrics())
        except MedclipError:
            if self._exit is None and not self._processed:  # at the start it is a refusal, later it must not cost a run
                raise

    def _as_metrics(self) -> list[Metric]:
        state, report = self._state(), self.report()
        code = () if self._exit is None else (({}, float(self._exit)),)
        reasons = tuple(
            ({"status": status, "reason": reason or "none"}, float(num))
            for (status, reason), num in sorted(self._processed.items())
        )
        return [
            Metric("running", "gauge", "1 while the command is at work.", (({}, float(self._exit is None)),)),
            Metric("exit_code", "gauge", "How the command ended; see medclip's exit codes.", code),
            Metric("start_time_seconds", "gauge", "When the command began, since 1970.", (({}, self._begun_at),)),
            Metric("update_time_seconds", "gauge", "When this file was written, since 1970.", (({}, self._now()),)),
            Metric(
                "files_known",
                "gauge",
                "Files of the run, as far as they are counted.",
                (({}, float(state["files_total"])),),
            ),
            Metric("files_done", "gauge", "Files of the run that have their row.", (({}, float(state["files_done"])),)),
            Metric("studies_done", "gauge", "Studies of the run that are done.", (({}, float(state["studies"])),)),
            Metric(
                "files_processed_total", "counter", "Files that this command processed, by how they ended.", reasons
            ),
            Metric(
                "files_per_second",
                "gauge",
                "Files that this command processed a second.",
                (({}, float(state["files_per_second"])),),
            ),
            Metric(
                "work_seconds_total",
                "counter",
                "Seconds of work over all processes and threads, by kind.",
                tuple(({"kind": kind}, seconds) for kind, seconds in report.seconds.items()),
            ),
        ]


def _exit_of(error: BaseException | None, counts: Mapping[str, int]) -> ExitCode:
    if error is None:
        return after(counts)
    if isinstance(error, MedclipError):
        return exit_code(error.reason)
    if isinstance(error, MemoryError):
        return ExitCode.INCOMPLETE
    return ExitCode.INTERRUPTED if isinstance(error, KeyboardInterrupt) else ExitCode.FAULT


@contextmanager
def watch_run(command: str, files: Sequence[Path]) -> Iterator[RunWatch]:
    """Yield what is told of a run, and tell it how the run ended.

    Args:
        command: The verb.
        files: Logs and files of metrics, told apart as `RunWatch` does it.

    Raises:
        MedclipError: For a file that cannot be written.
    """
    watch = RunWatch(command, files)
    token = _CURRENT.set(watch)
    try:
        yield watch
    except BaseException as error:
        watch.end(error)
        raise
    else:
        watch.end()
    finally:
        _CURRENT.reset(token)


_CURRENT: ContextVar[RunWatch | None] = ContextVar("medclip_watch", default=None)


def current_watch() -> RunWatch:
    """Return what is told of the call that is under way; one that writes nothing where nobody watches."""
    return _CURRENT.get() or RunWatch()
