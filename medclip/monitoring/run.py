"""Watch finished runs: read them, divide time, compare each period with the reference and one pack with another.

`Monitored` has what that gives: counts of each period, changes beside the reference, a comparison of two packs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.exit_codes import ExitCode
from medclip.files.output import disk_errors, write_file
from medclip.files.tables.write import csv_bytes, schema_of, table_of, write_rows
from medclip.monitoring.alarms import FALSE_ALARMS_A_YEAR, Alarm, Alarms, ChartPoint, alarms_of
from medclip.monitoring.changes import FAR, FEWEST_PATIENTS, Change, changes_of, compared_periods
from medclip.monitoring.read_results import SCORED, Periods, Watched, folder_of, missing_weeks, periods_of, read_results
from medclip.monitoring.side_by_side import ChangedStudy, Compared, side_by_side
from medclip.progress import Progress
from medclip.result import Result
from medclip.scoring.cautions import is_far
from medclip.wording import count, list_of, number, percent_of

if TYPE_CHECKING:
    import pyarrow as pa


JSON = "monitor.json"
REPORT = "report.html"
PERIODS = "periods.parquet"
"""Written first of all."""
FINDINGS_SHOWN = 5


@dataclass(frozen=True)
class PeriodRow:
    """One period in counts."""

    period: str
    num_units: int
    """Images, series, records."""
    num_scored: int
    num_skipped: int
    num_failed: int
    num_studies: int
    """With a score or a vector."""
    num_patients: int
    is_reference: int
    """1 where the period is the reference, or part of it."""
    is_compared: int
    """1 where it was large enough to be compared."""


@dataclass(frozen=True)
class Finding:
    """One sentence, and how large the change is that it is about."""

    size: str
    """alarm, or over for one that has ended; large, clear or small for a period that differs; note for what is none."""
    text: str


@dataclass(frozen=True, eq=False, repr=False)
class Monitored(Result):
    """Runs beside those of before."""

    by: str
    """week, month or run."""
    reference: str
    """What the periods are compared with, in words; "" where two packs alone are compared."""
    periods: tuple[PeriodRow, ...]
    changes: tuple[Change, ...]
    """Each period beside the reference: what alarms do not say, and no alarms themselves."""
    watch: Alarms | None = None
    """Alarms of single scanners, sites, views and protocols; None where two packs alone are compared."""
    compared: tuple[Compared, ...] = ()
    """Questions asked of the same studies by two packs; () where no other results were named with `compare`."""
    changed_studies: tuple[ChangedStudy, ...] = ()
    num_paired: tuple[int, int, int] = (0, 0, 0)
    """Studies that both results have, only the new ones, and only those of `compare`."""
    packs: tuple[str, ...] = ()
    """Of the watched runs."""
    packs_against: tuple[str, ...] = ()
    threshold: float = 0.5
    findings: tuple[Finding, ...] = ()
    """What stands out in sentences, the largest change first."""
    notes: tuple[str, ...] = ()
    folder: Path | None = None
    """Where page and tables lie; None where none was asked for."""

    @property
    def exit_code(self) -> int:
        """3 where an alarm stands at the end or a decision differs, 2 where nothing was compared, else 0."""
        if not self.has_compared:
            return ExitCode.REFUSED
        differs = any(one.num_to_yes or one.num_to_no for one in self.compared)
        stands = self.watch is not None and self.watch.stand
        return ExitCode.SOME_FAILED if stands or differs else ExitCode.COMPLETE

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """Charts that went above their limits, those of one change together."""
        return () if self.watch is None else self.watch.alarms

    @property
    def has_compared(self) -> bool:
        """Whether there is a single figure beside another one: not where every period is too small."""
        return bool(self.changes or self.compared or (self.watch and self.watch.num_charts))

    @property
    def table(self) -> pa.Table:
        """The changes as an Arrow table."""
        return _table(Change, self.changes)

    def to_json(self) -> str:
        """Return everything but the single studies as JSON."""
        values = {
            "by": self.by,
            "reference": self.reference,
            "exit_code": self.exit_code,
            "packs": list(self.packs),
            "packs_against": list(self.packs_against),
            "threshold": self.threshold,
            "findings": [asdict(finding) for finding in self.findings],
            "notes": list(self.notes),
            "false_alarms_a_year": None if self.watch is None else self.watch.rate,
            "alarms": [_plain(asdict(alarm)) for alarm in self.alarms],
            "periods": [asdict(row) for row in self.periods],
            "changes": [_plain(asdict(change)) for change in self.changes],
            "compared": [_plain(asdict(one)) for one in self.compared],
            "num_paired": dict(zip(("both", "only_new", "only_old"), self.num_paired, strict=True)),
        }
        return json.dumps(values, indent=1, ensure_ascii=False) + "\n"

    def write(self, folder: Path) -> None:
        """Write the tables and monitor.json into a folder."""
        with disk_errors(folder):
            (folder / JSON).unlink(missing_ok=True)  # until it is there again, new tables may stand beside old ones
        kinds: tuple[tuple[str, type, Any], ...] = (
            ("periods", PeriodRow, self.periods),
            ("alarms", Alarm, self.alarms),
            ("alarm_charts", ChartPoint, () if self.watch is None else self.watch.points),
            ("changes", Change, self.changes),
            ("compared", Compared, self.compared),
            ("changed_studies", ChangedStudy, self.changed_studies),
        )
        for name, kind, rows in kinds:
            path = folder / f"{name}.parquet"
            if name in ("compared", "changed_studies") and not self.compared:
                path.unlink(missing_ok=True)
                path.with_suffix(".csv").unlink(missing_ok=True)
                continue
            write_rows(path, kind, rows)
            if name != "changed_studies":
                write_file(path.with_suffix(".csv"), csv_bytes(_table(kind, rows)))
        write_file(folder / JSON, self.to_json())

    def _facts(self) -> Mapping[str, object]:
        sizes = [finding.size for finding in self.findings]
        sizes_found = ", ".join(f"{sizes.count(size)} {size}" for size in ("large", "clear", "small") if size in sizes)
        events = {alarm.event for alarm in self.alarms}
        paired = {} if not self.compared else {"compared with another pack": count(self.num_paired[0], "study")}
        return {
            "periods": f"{len(self.periods)} by {self.by}",
            "beside": self.reference or "none",
            "alarms": f"{len(events)}, of which {len({a.event for a in self.alarms if not a.until})} stand",
            "changes": sizes_found or "none that chance does not explain",
            **paired,
            "folder": self.folder or "none",
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return [asdict(change) for change in self.changes[:most]]


def _table(kind: type, rows: Any) -> pa.Table:
    return table_of(rows, kind, schema_of(kind))


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return values that JSON has: null in the place of NaN."""
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in values.items()}


_SHOWN = 5


def monitor_results(
    results: Sequence[Any],
    reference: Sequence[Any],
    compare: Sequence[Any],
    *,
    period: str | None,
    fewest: int = FEWEST_PATIENTS,
    false_alarms_a_year: float = FALSE_ALARMS_A_YEAR,
    min_probability: float = 0.5,
    num_resamples: int,
    seed: int,
    progress: Progress,
) -> Monitored:
    """Compare results with those of before, and with those of another pack.

    Args:
        results: Output folders of runs.
        reference: Output folders of runs of the time before; the first periods of `results` where there are none.
        compare: Output folders of runs of another pack on the same studies; none are needed.
        period: Unit of time: week, month or run; None for weeks where most units have one.
        fewest: Patients that a period needs to be compared.
        false_alarms_a_year: Rate of false alarms that is accepted over all charts.
        min_probability: Probability from which a finding is called, for `compare`.
        num_resamples: Resamples of patients.
        seed: Seed of all draws.
        progress: Progress bar of reading and comparing.

    Returns:
        The comparison, without sentences.

    Raises:
        MedclipError: MISSING_FILE, WRONG_USE; NOTHING_TO_DO where nothing can be compared.
    """
    for others, name in ((reference, "--before"), (compare, "--compare")):
        if {folder_of(given).resolve() for given in others} & {folder_of(given).resolve() for given in results}:
            raise MedclipError(
                Reason.WRONG_USE,
                f"{name} names a folder that is among the results.",
                hint="Name other results; what is compared with itself is never found to differ.",
            )
    progress.stage("Reading results", 1)
    watched = read_results(results)
    before = read_results(reference, watched.patients) if reference else None
    other = read_results(compare, watched.patients) if compare else None
    progress.step()
    periods = periods_of(watched.units.week_U, watched.runs, period)
    is_alone = before is None and len(periods.names) < 2
    rows = _rows(watched, before, periods, fewest, is_alone)
    if is_alone and other is None:
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            f"there is one {periods.by} only, and nothing to compare it with.",
            hint="Name results of the time before with --before, or those of another pack with --compare.",
        )
    progress.stage("Comparing", 1)
    changes, watch = [], None
    if not is_alone:
        watch = alarms_of(
            watched,
            before,
            periods,
            rate=false_alarms_a_year,
            fewest=fewest,
            num_resamples=num_resamples,
            seed=seed,
        )
        changes = changes_of(watched, before, periods, fewest=fewest, num_resamples=num_resamples, seed=seed)
    compared, studies, num_paired = ([], [], (0, 0, 0))
    if other is not None:
        compared, studies, num_paired = side_by_side(
            watched, other, threshold=min_probability, num_resamples=num_resamples, seed=seed
        )
    progress.step()
    return Monitored(
        by=periods.by,
        reference="" if is_alone else _reference(before, periods),
        periods=tuple(rows),
        changes=tuple(changes),
        watch=watch,
        compared=tuple(compared),
        changed_studies=tuple(studies),
        num_paired=num_paired,
        packs=tuple(dict.fromkeys(watched.packs)),
        packs_against=() if other is None else tuple(dict.fromkeys(other.packs)),
        threshold=min_probability,
        notes=(*_notes(watched, before, periods, rows, is_alone), *(watch.notes if watch else ())),
    )


def _reference(before: Watched | None, periods: Periods) -> str:
    if before is not None:
        return list_of(before.runs, most=_SHOWN)
    first = periods.names[: compared_periods(None, periods).start]
    return f"the first {count(len(first), periods.by)}: {list_of(first, most=_SHOWN)}"


def _rows(watched: Watched, before: Watched | None, periods: Periods, fewest: int, is_alone: bool) -> list[PeriodRow]:
    """Count each period, the runs of the reference first."""
    rows = []
    if before is not None:
        by_run = Periods("run", before.runs)
        rows = [_row(before, by_run, place, fewest, reference=True) for place in range(len(before.runs))]
    first = 0 if is_alone else compared_periods(before, periods).start
    rows += [_row(watched, periods, place, fewest, reference=place < first) for place in range(len(periods.names))]
    return rows


def _row(watched: Watched, periods: Periods, place: int, fewest: int, *, reference: bool) -> PeriodRow:
    units = watched.units
    inside = periods.codes(units.week_U, units.run_U) == place
    status = units.status_U[inside]
    num_patients = len(np.unique(units.patients_U[inside]))
    studies = {
        study
        for question in watched.questions
        for study in question.studies_N[periods.codes(question.week_N, question.run_N) == place]
    }
    num_vectors = 0
    if watched.vectors is not None:
        num_vectors = int((periods.codes(watched.vectors.week_N, watched.vectors.run_N) == place).sum())
    return PeriodRow(
        period=periods.names[place],
        num_units=int(inside.sum()),
        num_scored=int((status == SCORED).sum()),
        num_skipped=int((status == "skipped").sum()),
        num_failed=int((status == "failed").sum()),
        num_studies=max(len(studies), num_vectors),
        num_patients=num_patients,
        is_reference=int(reference),
        is_compared=int(not reference and num_patients >= fewest),
    )


def _notes(
    watched: Watched, before: Watched | None, periods: Periods, rows: Sequence[PeriodRow], is_alone: bool
) -> list[str]:
    notes = [*watched.notes, *_far(watched, periods)]
    if before is not None and set(before.packs) != set(watched.packs):
        notes.append(
            "The reference was scored by another pack: a change of scores, distances or vectors may be the pack's."
        )
    if watched.vectors is not None and before is not None and before.vectors is None:
        notes.append("The reference has no embeddings of the same image tower: vectors were not compared.")
    without = int((watched.units.week_U == "").sum())
    if periods.by != "run" and without:
        notes.append(f"{count(without, 'unit')} without a week took no part (no DICOM header, or no date in it).")
    if periods.by == "week" and (missing := missing_weeks(periods.names)):
        notes.append(f"No unit at all in {list_of(missing, most=_SHOWN)}.")
    small = [row.period for row in rows if not row.is_compared and not row.is_reference]
    if small and not is_alone:
        notes.append(f"Too few patients to be compared: {list_of(small, most=_SHOWN)}.")
    return notes


def _far(watched: Watched, periods: Periods) -> Iterator[str]:
    """Yield which images lie far from home, whatever the reference is: one of the same other site is as far.

    Of a modality that is not far as a whole, each period by itself: also one too small to be compared.
    """
    units = watched.units
    measured = ~np.isnan(units.distance_U)
    codes = periods.codes(units.week_U, units.run_U)
    for modality in sorted(set(units.facts["modality"][measured].tolist())):
        of_one = measured & (units.facts["modality"] == modality)
        inside, when = of_one, ""
        if not _is_far(watched, of_one):
            far = [place for place in range(len(periods.names)) if _is_far(watched, of_one & (codes == place))]
            if not far:
                continue
            inside = of_one & np.isin(codes, far)
            when = f" of {list_of([periods.names[place] for place in far], most=_SHOWN)}"
        num, num_far = int(inside.sum()), int((units.distance_U[inside] > FAR).sum())
        yield (
            f"{number(num_far)} of {count(num, 'image')}{when} ({modality}, {percent_of(num_far, num)}) lie far from "
            "those that the pack's figures were measured on, where one in twenty is expected: they come from "
            "elsewhere, or look so, and the figures on its card do not speak for them."
        )


def _is_far(watched: Watched, inside: NDArray[np.bool_]) -> bool:
    units = watched.units
    num, num_far = int(inside.sum()), int((units.distance_U[inside] > FAR).sum())
    return num > 0 and is_far(num, num_far, len(np.unique(units.patients_U[inside])))
