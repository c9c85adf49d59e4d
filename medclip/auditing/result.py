"""What an audit found, as plain tables: what is written beside the report, and all that the report shows."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Reason
from medclip.files.output import disk_errors, write_file
from medclip.files.tables.write import csv_bytes, parquet_bytes
from medclip.result import Result
from medclip.statistics.cohort import ALL
from medclip.wording import count, list_of

if TYPE_CHECKING:
    import pyarrow as pa

Row = Mapping[str, Any]
"""One row; a column that it lacks, or that holds None, NaN or infinity, is blank."""

JSON = "audit.json"
LEAKED_ROWS = "leaked_rows.csv"
"""Names the images that leak, and therefore stays where the images are; there only where there are any."""
_LEAKED = ("check", "key", "file", "other", "how")
_TEXT, _REAL, _WHOLE = "string", "double", "int64"
_RANGE = {"value": _REAL, "low": _REAL, "high": _REAL}
_TESTED = {"p": _REAL, "p_holm": _REAL, "p_bh": _REAL}
_CELL = {"model": _TEXT, "label": _TEXT, "attribute": _TEXT, "group": _TEXT}

COLUMNS: Mapping[str, Mapping[str, str]] = {
    "metrics": {
        **{"model": _TEXT, "dataset": _TEXT, "label": _TEXT, "attribute": _TEXT, "group": _TEXT, "metric": _TEXT},
        **_RANGE,
        **{"n": _WHOLE, "n_pos": _WHOLE, "n_neg": _WHOLE, "n_patients": _WHOLE},
        **{"undefined_share": _REAL, "flag": _TEXT, "reason": _TEXT},
    },
    "differences": {
        **_CELL,
        **{"metric": _TEXT, "reference": _TEXT},
        **_RANGE,
        **_TESTED,
        **{"family": _TEXT, "smallest_gap": _REAL},
    },
    "gaps": {
        **{"model": _TEXT, "label": _TEXT, "attribute": _TEXT, "gap": _TEXT},
        **_RANGE,
        **{"worst_group": _TEXT, "best_group": _TEXT, "num_groups": _WHOLE},
        **_TESTED,
        **{"family": _TEXT, "statistic": _REAL, "group": _TEXT, "same_as": _TEXT, "null_mean": _REAL, "null_95": _REAL},
        **{"smallest_gap": _REAL, "smallest_gap_every": _REAL, "flag": _TEXT},
    },
    "coinciding": {
        **_CELL,
        **{"metric": _TEXT, "given": _TEXT, "other_group": _TEXT, "share": _REAL, "association": _REAL},
        **_RANGE,
        "num_strata": _WHOLE,
    },
    "ratios": {**_CELL, "metric": _TEXT, "reference": _TEXT, **_RANGE, "verdict": _TEXT},
    "equity": {
        **{"model": _TEXT, "label": _TEXT, "attribute": _TEXT, "metric": _TEXT, "measure": _TEXT, "group": _TEXT},
        **{"num_groups": _WHOLE, **_RANGE},
    },
    "models": {
        **{"model": _TEXT, "other": _TEXT, "label": _TEXT, "attribute": _TEXT, "group": _TEXT, "metric": _TEXT},
        **_RANGE,
        **_TESTED,
        **{"delong_p": _REAL, "family": _TEXT},
    },
    "thresholds": {
        **{"model": _TEXT, "label": _TEXT, "value": _REAL, "policy": _TEXT, "chosen_on": _TEXT},
        **{"n": _WHOLE, "n_pos": _WHOLE, "n_patients": _WHOLE, "hash": _TEXT},
    },
    "calibration": {
        **_CELL,
        **{"bin": _WHOLE, "low_edge": _REAL, "high_edge": _REAL, "mean_score": _REAL, "observed": _REAL},
        **{"low": _REAL, "high": _REAL, "n": _WHOLE, "after": _TEXT},
    },
    "decision": {**_CELL, "threshold": _REAL, "net_benefit": _REAL, "low": _REAL, "high": _REAL, "treat_all": _REAL},
    "representation": {
        **{"model": _TEXT, "attribute": _TEXT, "group": _TEXT},
        **_RANGE,
        **{"reference": _REAL, "standardised": _REAL, "distance": _REAL, "distance_by_chance": _REAL},
        **{"n_patients": _WHOLE, "flag": _TEXT},
    },
    "ordinal": {
        **_CELL,
        **{"metric": _TEXT, "reference": _TEXT},
        **_RANGE,
        **_TESTED,
        **{"family": _TEXT, "n": _WHOLE, "n_patients": _WHOLE, "flag": _TEXT, "reason": _TEXT},
    },
    "masks": {
        **_CELL,
        **{"metric": _TEXT, "method": _TEXT, "reference": _TEXT},
        **_RANGE,
        **_TESTED,
        **{"family": _TEXT, "n": _WHOLE, "n_patients": _WHOLE, "flag": _TEXT, "reason": _TEXT},
    },
    "risk": {
        **_CELL,
        **{"population": _TEXT, "year": _WHOLE, "metric": _TEXT},
        **_RANGE,
        **{"n": _WHOLE, "n_pos": _WHOLE, "n_neg": _WHOLE, "n_patients": _WHOLE, "flag": _TEXT, "reason": _TEXT},
    },
    "requirements": {
        **{"model": _TEXT, "requirement": _TEXT, "part": _TEXT, "verdict": _TEXT, "reason": _TEXT, "label": _TEXT},
        **{"attribute": _TEXT, "group": _TEXT, "reference": _TEXT, "metric": _TEXT, "bound": _REAL},
        **_RANGE,
        **{"confidence": _REAL, "n": _WHOLE, "n_pos": _WHOLE, "n_neg": _WHOLE, "n_patients": _WHOLE},
    },
    "suppressed": {"label": _TEXT, "attribute": _TEXT, "group": _TEXT, "reason": _TEXT, "n": _TEXT},
    "flow": {"model": _TEXT, "label": _TEXT, "step": _TEXT, "n": _WHOLE},
    "unscored": {
        **{"model": _TEXT, "attribute": _TEXT, "group": _TEXT, "reason": _TEXT, "n": _WHOLE, "n_patients": _WHOLE},
        **{"n_unscored": _WHOLE, **_RANGE},
        **{"difference": _REAL, "difference_low": _REAL, "difference_high": _REAL},
        **_TESTED,
        **{"family": _TEXT, "flag": _TEXT},
    },
    "score_values": {"model": _TEXT, "label": _TEXT, "n": _WHOLE, "n_values": _WHOLE},
    "unlabelled": {
        **_CELL,
        **{"n": _WHOLE, "n_patients": _WHOLE, "n_unlabelled": _WHOLE, **_RANGE},
        **{"difference": _REAL, "difference_low": _REAL, "difference_high": _REAL},
        **_TESTED,
        **{"family": _TEXT, "flag": _TEXT},
    },
    "shortcuts": {
        **{"model": _TEXT, "label": _TEXT, "test": _TEXT, "stratum": _TEXT, "metric": _TEXT},
        **_RANGE,
        "p": _REAL,
        **{"n": _WHOLE, "n_pos": _WHOLE, "note": _TEXT},
    },
    "sources": {
        **{"model": _TEXT, "label": _TEXT, "attribute": _TEXT, "source": _TEXT, "what": _TEXT},
        **_RANGE,
        **_TESTED,
        **{"family": _TEXT, "n_pos": _WHOLE, "n_neg": _WHOLE, "severity": _TEXT, "note": _TEXT},
    },
    "embeddings": {
        **{"model": _TEXT, "what": _TEXT, "attribute": _TEXT, "name": _TEXT},
        **_RANGE,
        **{"p": _REAL, "note": _TEXT},
    },
    "projection": {"model": _TEXT, "x": _REAL, "y": _REAL, "attribute": _TEXT, "group": _TEXT},
    "stress": {
        **_CELL,
        **{"kind": _TEXT, "name": _TEXT, "grade": _WHOLE, "strength": _TEXT, "metric": _TEXT},
        **_RANGE,
        **{"change": _REAL, "change_low": _REAL, "change_high": _REAL},
        **{"more": _REAL, "more_low": _REAL, "more_high": _REAL},
        **{"error_ratio": _REAL, "error_ratio_low": _REAL, "error_ratio_high": _REAL},
        **_TESTED,
        **{"family": _TEXT, "n": _WHOLE, "n_pos": _WHOLE, "n_patients": _WHOLE, "flag": _TEXT},
    },
    "stress_ood": {
        **{"model": _TEXT, "attribute": _TEXT, "group": _TEXT, "name": _TEXT, "grade": _WHOLE, "score": _TEXT},
        **_RANGE,
        **{"fpr95": _REAL, "n": _WHOLE},
    },
    "leakage": {"check": _TEXT, "found": _WHOLE, "tested": _WHOLE, "severity": _TEXT, "sentence": _TEXT},
}
"""The columns of each table, in order, with the name of their Arrow type."""


@dataclass(frozen=True, eq=False, repr=False)
class AuditResult(Result):
    """A whole audit; every table may be empty. No table holds a key, a file name or a patient."""

    metrics: tuple[Row, ...] = ()
    """Each measure of each label and group, with its interval; `flag` is "", "suppressed" or "underpowered"."""
    differences: tuple[Row, ...] = ()
    """Each group minus its reference ("rest": all others), and calibration of everybody minus "ideal"."""
    gaps: tuple[Row, ...] = ()
    """One number for an attribute: worst against best, and the like; p is that of the permutation test."""
    coinciding: tuple[Row, ...] = ()
    """A difference that was found, within the groups of another attribute (`given`) that its group goes with."""
    ratios: tuple[Row, ...] = ()
    """Rates of each group over those of the largest group of its attribute (`reference`), and whether they lie inside
    the tolerance (`verdict`: inside, outside, undecided)."""
    equity: tuple[Row, ...] = ()
    """Of each attribute the worst group's AUROC and the equity-scaled one (`measure`)."""
    models: tuple[Row, ...] = ()
    """`other` minus `model`, on the same patients."""
    thresholds: tuple[Row, ...] = ()
    """The threshold of each label, and the data that chose it."""
    calibration: tuple[Row, ...] = ()
    """Bins of the reliability plots; `after` is "raw" or "temperature"."""
    decision: tuple[Row, ...] = ()
    """Net benefit over thresholds."""
    representation: tuple[Row, ...] = ()
    """Share of patients in each group beside its reference; of an attribute as a whole (`all`) the distance."""
    ordinal: tuple[Row, ...] = ()
    """Agreement of gradings in ordered classes; rows with a `reference` ("rest") are a group minus all others."""
    masks: tuple[Row, ...] = ()
    """Overlap, distance and lesions of masks; `method` is "model", or a rival ("mean mask" of other patients, "otsu").
    Rows with a `reference` are differences: the model's less a rival's, or a group's less all others' ("rest")."""
    risk: tuple[Row, ...] = ()
    """Concordance, areas and calibration of risks, by year and population (all, or without early events)."""
    requirements: tuple[Row, ...] = ()
    """What was declared beforehand: `verdict` is "met", "not met" or "undecided", of a requirement as such and of each
    of its groups."""
    suppressed: tuple[Row, ...] = ()
    """Groups that are too small to be shown, with a count that names nobody ("<10")."""
    flow: tuple[Row, ...] = ()
    """Rows that are left after each step from the tables to what was measured."""
    unscored: tuple[Row, ...] = ()
    """Labelled rows without a score, of everybody and of each group: all of them (`reason` blank), then by reason."""
    score_values: tuple[Row, ...] = ()
    """How many different scores there are of each label, risk and grading."""
    unlabelled: tuple[Row, ...] = ()
    """Scored rows without a label, of each label that any lacks: everybody, by score, and in each group."""
    shortcuts: tuple[Row, ...] = ()
    """Tests of devices and of reweighted gaps; `note` says what was found, or why a test was not done."""
    sources: tuple[Row, ...] = ()
    """What the score gets within sources and across them, and what it knows of them; `severity` is "red" or "note"."""
    embeddings: tuple[Row, ...] = ()
    """`what` is "probe", "reident", "drift" or "centroid"."""
    projection: tuple[Row, ...] = ()
    """Points of a 2-D view of the embeddings, of groups that may be shown, in an order that says nothing."""
    stress: tuple[Row, ...] = ()
    """Measures of images and prompts that are not as they were, with the change from the clean ones."""
    stress_ood: tuple[Row, ...] = ()
    """How well scores of strangeness tell corrupted images from clean ones: AUROC."""
    leakage: tuple[Row, ...] = ()
    """Each check that ran, or could not (`tested` 0 or blank); `severity` is "red" or "note"."""
    check_tables: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)
    """Rows of the tables of checks that are not medclip's own, by the name of the table."""
    check_columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Columns of these, as `COLUMNS` has those of the others."""
    model_names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What was asked for: replicates, permutations, alpha, minimum cell sizes, interval."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Command, date, who and why, versions, inputs by name and SHA-256, seed: `medclip.auditing.provenance`. The same
    audit on the same day gives the same bytes."""
    sealed: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of page, tables and recipe, where they were written."""
    leaked_rows: tuple[Row, ...] = ()
    """The images behind `leakage`, by key and file name: in no table, page or JSON, only in `LEAKED_ROWS`."""
    worst_errors: tuple[Row, ...] = ()
    """Small images of errors, where they were asked for: on the page, in no table and no JSON."""
    notes: tuple[str, ...] = ()
    """Sentences: what was left out, mended or assumed."""

    def _facts(self) -> dict[str, object]:
        tables = (*self.differences, *self.gaps)
        tested = [(p, row) for row in tables if (p := _cell(row.get("p_holm"), _REAL)) is not None]
        alpha = self.settings.get("alpha", 0.05)
        larger = dict.fromkeys(
            f"{row['label']}, calibration" if row["attribute"] == ALL else f"{row['label']} by {row['attribute']}"
            for p, row in tested
            if p <= alpha
        )
        red = [str(row.get("check")) for row in self.leakage if row.get("severity") == "red"]
        checked = [bool(_cell(row.get("tested"), _REAL)) for row in self.leakage]
        checks = f"{sum(checked)} of {count(len(checked), 'check')}"
        gaps = list_of(list(larger), most=5) if larger else "none" if tested else "not tested"
        return {
            **({"requirements": _verdicts(self.requirements)} if self.requirements else {}),
            "leakage": list_of(red, most=5) if red else f"none in {checks}" if any(checked) else "not looked for",
            "larger than chance": gaps,
            "models": list_of(self.model_names, most=5),
            "labels": list_of(self.labels, most=5),
            "groups by": list_of(self.attributes, most=5),
            "measures": len(self.metrics) + len(self.masks),
            "groups too small to show": len(self.suppressed),
            "notes": len(self.notes),
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        table = "metrics" if self.metrics or not self.masks else "masks"
        return [
            {name: _cell(row.get(name), kind) for name, kind in COLUMNS[table].items()}
            for row in self.rows(table)[:most]
        ]

    def rows(self, name: str) -> tuple[Row, ...]:
        """Return the rows of a table by its name."""
        rows: tuple[Row, ...] = self.check_tables[name] if name in self.check_tables else getattr(self, name)
        return rows

    @property
    def columns(self) -> Mapping[str, Mapping[str, str]]:
        """Columns of every table, those of checks that are not medclip's own last."""
        return {**COLUMNS, **self.check_columns}

    @property
    def leaks(self) -> bool:
        """Whether a check for leakage came out red."""
        return any(row.get("severity") == "red" for row in self.leakage)

    @property
    def red_box(self) -> bool:
        """Whether the page has a red box: a leak, a score that follows the source, a requirement that is not met."""
        failed = any(row.get("verdict") == "not met" for row in self.requirements)
        return self.leaks or failed or any(row.get("severity") == "red" for row in self.sources)

    def tidied(self) -> AuditResult:
        """Return the same audit with every row complete, in the types of `COLUMNS`, and None for each blank."""
        tidied = {name: self._tidy(name) for name in self.check_tables}
        return replace(self, check_tables=tidied, **{name: self._tidy(name) for name in COLUMNS})

    def tables(self) -> dict[str, pa.Table]:
        """Return every table by its name, with the types of `COLUMNS`; empty ones too."""
        import pyarrow as pa

        tables: dict[str, pa.Table] = {}
        for name, columns in self.columns.items():
            schema = pa.schema([(column, pa.type_for_alias(kind)) for column, kind in columns.items()])
            tables[name] = pa.Table.from_pylist([dict(row) for row in self._tidy(name)], schema)
        return tables

    def to_json(self) -> str:
        """Write everything as JSON; blanks are null."""
        tables = {name: list(self._tidy(name)) for name in self.columns}
        about: dict[str, Any] = {
            "models": list(self.model_names),
            "labels": list(self.labels),
            "attributes": list(self.attributes),
            "settings": dict(self.settings),
            "provenance": dict(self.provenance),
            "notes": list(self.notes),
            "sealed": dict(self.sealed),
        }
        if self.check_columns:
            about["columns"] = {name: dict(columns) for name, columns in self.check_columns.items()}
        return json.dumps({**about, "tables": tables}, indent=1, ensure_ascii=False, default=_plain) + "\n"

    def _tidy(self, name: str) -> tuple[Row, ...]:
        columns = self.columns[name]
        return tuple(
            {column: _cell(row.get(column), kind) for column, kind in columns.items()} for row in self.rows(name)
        )


def write_tables(result: AuditResult, folder: Path) -> dict[str, str]:
    """Write every table as Parquet and CSV; an empty table is a file with a header.

    Returns:
        The SHA-256 of each file, by its name.

    Raises:
        MedclipError: DISK_FULL; WRONG_USE where the folder cannot be written.
    """
    hashes: dict[str, str] = {}
    for name, table in result.tables().items():
        for suffix, content in (("parquet", parquet_bytes(table)), ("csv", csv_bytes(table))):
            content = content.encode() if isinstance(content, str) else content
            write_file(folder / f"{name}.{suffix}", content)
            hashes[f"{name}.{suffix}"] = hashlib.sha256(content).hexdigest()
    _write_leaked_rows(result.leaked_rows, folder / LEAKED_ROWS)
    return hashes


def _write_leaked_rows(rows: Sequence[Row], path: Path) -> None:
    """Name the images that leak, where there are any; what another audit left of them goes."""
    if not rows:
        with disk_errors(path.parent):
            path.unlink(missing_ok=True)
        return
    import pyarrow as pa

    schema = pa.schema([(name, pa.string()) for name in _LEAKED])
    write_file(path, csv_bytes(pa.Table.from_pylist([dict(row) for row in rows], schema)))


def write_json(result: AuditResult, folder: Path) -> None:
    """Write everything as JSON."""
    write_file(folder / JSON, result.to_json())


def read_result(path: Path) -> AuditResult:
    """Read an audit back from its `audit.json`, or the folder that holds it.

    Raises:
        MedclipError: MISSING_FILE; CORRUPT for what `medclip audit` did not write, or did not write to its end.
    """
    path = path / JSON if path.is_dir() else path
    if not path.is_file():
        raise MedclipError(Reason.MISSING_FILE, "there is no audit here.", where=path, hint=f"Name its {JSON}.")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        rest: dict[str, Any] = {name: tuple(values["tables"].get(name, ())) for name in COLUMNS}
        rest["check_columns"] = values.get("columns", {})
        rest["check_tables"] = {name: tuple(values["tables"][name]) for name in rest["check_columns"]}
        rest |= {name: values[name] for name in ("settings", "provenance")}
        rest |= {name: tuple(values[name]) for name in ("labels", "attributes", "notes")}
        return AuditResult(**rest, model_names=tuple(values["models"]), sealed=values.get("sealed", {}))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise MedclipError(
            Reason.CORRUPT, f"this is no {JSON} that medclip audit wrote to its end.", where=path, hint="Audit again."
        ) from e


def _verdicts(requirements: tuple[Row, ...]) -> str:
    """Count what was declared: 2 met, 1 undecided."""
    counts = Counter(str(row.get("verdict")) for row in requirements if row.get("part") == "requirement")
    return list_of([f"{num} {verdict}" for verdict, num in sorted(counts.items())])


def _cell(value: Any, kind: str) -> Any:
    """Make a value of a row into one of its column; what is no number is blank in a column of numbers."""
    if kind == _TEXT:
        return None if value is None else str(value)
    number = math.nan if value is None else float(value)
    if not math.isfinite(number):
        return None
    return number if kind == _REAL else int(number)


def _plain(value: Any) -> Any:
    """Make numpy scalars and the like into what JSON has."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
