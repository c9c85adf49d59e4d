"""Turn the table of an ECG set into a table for shards: cleaned reports, reports written of SCP codes, and labels.

Each set has a map of its columns (`medclip.files.tables.ecg`); what is taken out of reports is in
`medclip.text.ecg.cleaning`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from medclip.errors import MedclipError, Reason
from medclip.files.tables.column_maps import placed, rows_of
from medclip.files.tables.ecg.column_maps import map_of
from medclip.files.tables.ecg.ecg_row import EcgRow, record_file
from medclip.files.tables.read_table import read_table
from medclip.progress import Progress, Silent
from medclip.result import named_counts
from medclip.shards.writing.captions import (
    CaptionsReport,
    check_output,
    generator_of,
    moved_files,
    save_table,
    set_table,
)
from medclip.text.ecg.statement_report import WRITTEN_IN, distinct_statement_reports
from medclip.wording import list_of

_FIRST = (
    "file", "patient", "study", "modality", "exam_date", "age", "sex", "split", "language", "scp_codes",
)  # fmt: skip
_MOST = 100.0


@dataclass(frozen=True, repr=False)
class EcgCaptions(CaptionsReport):
    """What became of the table of a set; its rows are records."""

    dataset: str = ""
    """Whose columns it has."""
    num_reports: int = 0
    """Records whose own report stays, cleaned, as the first caption."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Reports that do not, by reason."""
    languages: Mapping[str, int] = field(default_factory=dict)
    """Reports that stay, by language; "unknown" where it cannot be told."""
    min_likelihood: float = 0.0
    """Below which a diagnosis counts as absent."""
    notes: tuple[str, ...] = ()

    def _facts(self) -> dict[str, object]:
        facts = super()._facts()
        return {
            "set": f"{self.dataset}, {self.num_rows} rows",
            "captions": facts["captions"],
            "notes": " ".join(self.notes),
            "own reports": f"{self.num_reports} ({named_counts(self.languages)})",
            "reports left out": named_counts(self.left_out),
            **facts,
        }


def captions_from_ecg(
    table: Path | str,
    out: Path | str,
    *,
    dataset: str | None = None,
    file: str | None = None,
    n: int = 3,
    language: str = "en",
    min_likelihood: float = 0.0,
    seed: int = 0,
    images: Path | str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> EcgCaptions:
    """Write a table for `medclip shards build` of an ECG set's own table: one row a record, with its labels, its
    cleaned report, and `n` reports that say what its SCP-ECG codes say.

    Texts stand in the column `captions`: those that the table had there, the set's own report (in lower case, without
    the cart, the editor's labels and whoever confirmed it), then the written ones. A report that says nothing of the
    record is left out and counted. Labels are those of the six ECG tasks; what nobody looked for has none.

    Args:
        table: CSV, TSV or Parquet: of PTB-XL (whole, or its filtered part), MIMIC-IV-ECG, CPSC2018 or
            Chapman-Shaoxing.
        out: The file to write: .csv, .tsv, .parquet or .pq.
        dataset: Name of the set; None: told from the columns.
        file: Where a record lies, with columns of the table in braces: "{filename_lr}". None: as the set is published.
        n: Reports written for each record that has codes, at least 1.
        language: Of the written reports: en or de.
        min_likelihood: Of PTB-XL: diagnoses below it, of 100, count as absent. With 0 every listed statement is
            present, whatever its likelihood: the rule of the benchmark.
        seed: Another seed gives other wordings.
        images: Folder of the set's records; the table's own where None. No record is opened.
        overwrite: Replace `out` where it exists.
        progress: Counts the records.

    Returns:
        Counts, and what to know of the set.

    Raises:
        MedclipError: TABLE_INVALID or MISSING_FILE from the table, with the row; WRONG_USE for a set, a place of
            records, a language, a likelihood, an output or a number that cannot be; OUTPUT_IN_USE, DISK_FULL,
            PERMISSION_DENIED.
    """
    source, target = Path(table), Path(out)
    _check(language, min_likelihood)
    check_output(source, target, n, overwrite)
    read = read_table(source)
    column_map = map_of(read, dataset)
    base = Path(images) if images is not None else source.parent
    try:
        reading = column_map.read(rows_of(read, column_map.uses, file), min_likelihood)
    except MedclipError as e:
        raise MedclipError(e.reason, e.message, where=read.where, hint=e.hint) from None
    records = [replace(row, file=record_file(row.file)) for row in placed(reading.rows, column_map, file)]
    progress = progress or Silent()
    progress.stage("Records", len(records))
    added: list[tuple[str, ...]] = []
    for row in records:
        added.append(_captions(row, n, seed, language))
        progress.step()
    moved = moved_files([row.file for row in records], base, target.parent)
    save_table(set_table(records, added, moved, _FIRST, column_map), target)
    reports = [row.report for row in records if row.report]
    own = [report.language or "unknown" for report in reports if report.text]
    return EcgCaptions(
        out=target,
        num_rows=len(records),
        num_captioned=sum(bool(a) for a in added),
        num_without_labels=sum(not a and not row.labels for row, a in zip(records, added, strict=True)),
        num_captions=sum(map(len, added)),
        num_short=sum(bool(row.codes) and len(a) < n for row, a in zip(records, added, strict=True)),
        num_moved=sum(f is not None for f in moved),
        dataset=column_map.name,
        num_reports=len(own),
        left_out=dict(sorted(Counter(report.left_out for report in reports if report.left_out).items())),
        languages=dict(sorted(Counter(own).items())),
        min_likelihood=min_likelihood,
        notes=reading.notes,
    )


def _check(language: str, min_likelihood: float) -> None:
    if language not in WRITTEN_IN:
        raise MedclipError(
            Reason.WRONG_USE, f"reports are written in {list_of(WRITTEN_IN, 'or')}, not in {language!r}."
        )
    if not 0 <= min_likelihood <= _MOST:
        raise MedclipError(Reason.WRONG_USE, f"a likelihood is 0 to 100, not {min_likelihood:g}.")


def _captions(row: EcgRow, n: int, seed: int, language: str) -> tuple[str, ...]:
    own = (row.report.text,) if row.report and row.report.text else ()
    written = distinct_statement_reports(row.codes, n, generator_of([row.file, row.codes, language], seed), language)
    return tuple(dict.fromkeys([*own, *written]))
