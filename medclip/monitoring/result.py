"""What watching gives: counts of each period, changes beside the reference, a comparison of two packs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.exit_codes import ExitCode
from medclip.files.output import disk_errors, write_file
from medclip.files.tables.write import csv_bytes, schema_of, table_of, write_rows
from medclip.monitoring.changes import Change
from medclip.monitoring.side_by_side import ChangedStudy, Compared
from medclip.result import Result
from medclip.wording import count

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
    """large, clear or small; "note" for what is no change."""
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
        """3 where a clear or large change was found or a decision differs, 2 where nothing was compared, else 0."""
        if not self.has_compared:
            return ExitCode.REFUSED
        drifted = any(change.size in ("clear", "large") for change in self.changes)
        differs = any(one.num_to_yes or one.num_to_no for one in self.compared)
        return ExitCode.SOME_FAILED if drifted or differs else ExitCode.COMPLETE

    @property
    def has_compared(self) -> bool:
        """Whether there is a single figure beside another one: not where every period is too small."""
        return bool(self.changes or self.compared)

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
        paired = {} if not self.compared else {"compared with another pack": count(self.num_paired[0], "study")}
        return {
            "periods": f"{len(self.periods)} by {self.by}",
            "beside": self.reference or "none",
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
