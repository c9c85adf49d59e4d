"""Whoever is told how a run goes on, beside the person at the terminal: its log and its metrics.

`watch_run` stands around a whole call, so that a refusal before the first file is an event, too; `conduct` tells it of
what happens in between. Nothing it writes is part of what the run is: tables and report are the same with and without.

The log has JSON lines: events, counts and reasons, for programs that watch many runs. It never holds a path, a name of
a file, a sentence about one, or an identifier: which files failed is in files.parquet.

The metrics are in Prometheus' text format, written by its own client, for the textfile collector of node_exporter:
https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format. The file appears whole (rename), as the
collector asks. It holds numbers, names of reasons, and the name of the file itself, which is the label `run`: the
collector refuses two files that state the same metric with the same labels.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason, Status
from medclip.exit_codes import ExitCode, after, exit_code
from medclip.files.access import file_modes
from medclip.files.output import check_place, claim_file, disk_errors, make_folder, new_file
from medclip.runs.operations.work_seconds import WorkReport, WorkSeconds
from medclip.runs.rows import FileRow

SECONDS = 10.0
"""Between two events of progress, and two writings of the metrics."""


class RunWatch:
    """Told of a run by whoever conducts it.

    Args:
        command: The verb.
        files: Files that are written: those that end in .prom have metrics, others events as JSON lines.
        note: Function that shows a sentence to the person at the terminal.
        clock: Function that returns seconds, for what lies between.
        now: Function that returns seconds since 1970.

    Raises:
        MedclipError: For a log that cannot be written; WRONG_USE for metrics where others write. Metrics that the disk
            does not take cost no run: they are noted.
    """

    def __init__(
        self,
        command: str = "run",
        files: Sequence[Path] = (),
        *,
        note: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._command, self._note, self._clock, self._now = command, note, clock, now
        self.files = tuple(files)
        """What it writes."""
        self._metrics = [file for file in files if file.suffix == METRICS_SUFFIX]
        faults = {file: check_metrics_file(file) for file in self._metrics}
        self._logs = [EventLog(file) for file in files if file.suffix != METRICS_SUFFIX]
        self._not_written: set[Path] = set()
        for file, fault in faults.items():
            if fault is not None:
                self._note_metrics(file, fault)
        self.work = WorkSeconds(clock)
        self.counted: Callable[[], Mapping[str, float]] = dict
        """Returns seconds of work that others count: a reading pool, and the ledger."""
        self._begun, self._begun_at, self._progress_at = clock(), now(), clock()
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
        if self._clock() - self._progress_at >= SECONDS:
            self._progress_at = self._clock()
            self._event("progress", **self._state())
            self._write_metrics()

    def wrote(self, counts: Mapping[str, int], *, already: bool) -> None:
        """Take note that the results are written."""
        self._counts, self._total = dict(counts), counts["files"]
        self._facts["already_finished"] = already

    def previewed(self, counts: Mapping[str, int]) -> None:
        """Take note that the files were looked at, and none read."""
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
        for file in self._metrics:
            try:
                write_metrics(file, self._as_metrics())
            except MedclipError as fault:
                self._note_metrics(file, fault)
            else:
                self._not_written.discard(file)

    def _note_metrics(self, file: Path, fault: MedclipError) -> None:
        """Note once, until they can be written again, that metrics are missing: they must not cost a run."""
        if file not in self._not_written:
            self._not_written.add(file)
            self._event("metrics_not_written", reason=str(fault.reason))
            self._note(f"No metrics: {fault} The run goes on without them.")

    def _as_metrics(self) -> list[Metric]:
        state, report = self._state(), self.report()
        processed = sorted(self._processed.items())

        def one(value: float) -> Sequence[tuple[Mapping[str, str], float]]:
            return [({}, float(value))]

        return [
            ("running", "1 while the command is at work.", one(self._exit is None)),
            (
                "exit_code",
                "How the command ended; see medclip's exit codes.",
                () if self._exit is None else one(self._exit),
            ),
            ("start_time_seconds", "When the command began, since 1970.", one(self._begun_at)),
            ("update_time_seconds", "When this file was written, since 1970.", one(self._now())),
            ("files_known", "Files of the run, as far as they are counted.", one(state["files_total"])),
            ("files_done", "Files of the run that have their row.", one(state["files_done"])),
            ("studies_done", "Studies of the run that are done.", one(state["studies"])),
            (
                "files_processed_total",
                "Files that this command processed, by how they ended.",
                [({"status": status, "reason": reason or "none"}, num) for (status, reason), num in processed],
            ),
            ("files_per_second", "Files that this command processed a second.", one(state["files_per_second"])),
            (
                "work_seconds_total",
                "Seconds of work over all processes and threads, by kind.",
                [({"kind": kind}, seconds) for kind, seconds in report.seconds.items()],
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
def watch_run(command: str, files: Sequence[Path], note: Callable[[str], None]) -> Iterator[RunWatch]:
    """Yield what is told of a run, and tell it how the run ended.

    Raises:
        MedclipError: As `RunWatch`.
    """
    watch = RunWatch(command, files, note=note)
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


_START = b'{"time": '
"""Of each line, and so of each file."""


class EventLog:
    """Appends one line for each event; each is written at once, and whole.

    What cannot be written later on, since the disk is full, is dropped: a log must not cost a run.

    Args:
        path: The file, which is made or goes on; a device or a pipe, such as /dev/stderr, will do, too.
        now: The time of an event.

    Raises:
        MedclipError: WRONG_USE for a file that holds something else.
    """

    def __init__(self, path: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._run = secrets.token_hex(4)
        if not os.path.lexists(path):
            check_place(path)
        _refuse_other(path)
        with disk_errors(path):
            make_folder(path.parent)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, file_modes().file)

    def write(self, event: str, **values: Any) -> None:
        """Append an event; `run` tells apart those of several calls that one file holds."""
        time = self._now().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps({"time": time, "event": event, "run": self._run, **values})
        with suppress(OSError):
            os.write(self._descriptor, f"{line}\n".encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def _refuse_other(path: Path) -> None:
    """Refuse to append to a file that holds anything but events: an image, say, that was named by mistake."""
    if not path.is_file():
        return
    with disk_errors(path), path.open("rb") as file:
        start = file.read(len(_START))
    if start and start != _START:
        raise MedclipError(
            Reason.WRONG_USE,
            "this file is no log of medclip; nothing was written to it.",
            where=path,
            hint="Name a new file.",
        )


METRICS_SUFFIX = ".prom"
"""Other files are not read by the collector."""
_MODE = 0o644
"""The collector runs as a user of its own, and there is nothing in the file that is not for it."""
_PREFIX = "medclip_run_"
_MOST_BYTES = 1 << 20
"""Read of a file that is there; ours have some kilobytes."""
Metric = tuple[str, str, Sequence[tuple[Mapping[str, str], float]]]
"""Name without the prefix (a counter's ends in _total), help, and its values: labels and number."""


def check_metrics_file(path: Path) -> MedclipError | None:
    """Refuse a file that can only be a mistake, or that others write; return why the disk does not take it now.

    Raises:
        MedclipError: WRONG_USE.
    """
    try:
        claim_file(path, overwrite=True)
        with disk_errors(path):
            is_ours = not path.is_file() or _is_ours(path)
    except MedclipError as fault:
        if fault.reason is Reason.WRONG_USE:
            raise
        return fault
    if not is_ours:
        raise MedclipError(
            Reason.WRONG_USE,
            "this file holds metrics that medclip did not write; it was left as it is.",
            where=path,
            hint="Name another file, with a name of its own for each folder of results.",
        )
    return None


def _is_ours(path: Path) -> bool:
    """Return whether a file is empty or holds metrics of a run and no others."""
    with path.open("rb") as file:
        lines = file.read(_MOST_BYTES).decode(errors="replace").splitlines()
    named = (line.removeprefix("# HELP ").removeprefix("# TYPE ") for line in lines if line.strip())
    return all(name.startswith(_PREFIX) for name in named)


def write_metrics(path: Path, metrics: Iterable[Metric]) -> None:
    """Write metrics; readable for all."""
    text = metrics_text(metrics, run=path.stem)
    with new_file(path) as draft:
        draft.write_text(text, encoding="utf-8")
    with suppress(OSError):  # file systems without modes
        os.chmod(path, _MODE)


def metrics_text(metrics: Iterable[Metric], run: str) -> str:
    """Return metrics as text; `run` becomes a label of each value."""
    from prometheus_client import generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector

    class Families(Collector):
        def collect(self) -> Iterator[Any]:
            for name, explanation, values in metrics:
                labels = ["run", *(values[0][0] if values else ())]
                family_type = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
                family = family_type(f"{_PREFIX}{name}", explanation, labels=labels)
                for labels_of_value, value in values:
                    family.add_metric([run, *labels_of_value.values()], value)
                yield family

    return generate_latest(Families()).decode()
