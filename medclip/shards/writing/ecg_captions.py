"""Turn the table of an ECG set into a table for shards: cleaned reports, reports written of SCP codes, and labels.

Each set has a map of its columns (`medclip.files.tables.ecg`); what is taken out of reports is in
`medclip.text.ecg.cleaning`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from medclip.errors import MedclipError
from medclip.files.tables.column_maps import ecg_map_of, placed, rows_of
from medclip.files.tables.ecg.ecg_row import EcgRow, record_file
from medclip.files.tables.read_table import read_table
from medclip.progress import Progress
from medclip.result import named_counts
from medclip.shards.writing.captions import (
    CaptionsForm,
    CaptionsReport,
    check_output,
    generator_of,
    moved_files,
    save_table,
    set_table,
)
from medclip.text.ecg.statement_report import distinct_statement_reports

_FIRST = (
    "file",
    "patient",
    "study",
    "modality",
    "exam_date",
    "age",
    "sex",
    "split",
    "language",
    "scp_codes",
)


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


def write_ecg_captions(
    source: Path,
    form: CaptionsForm,
    progress: Progress,
    *,
    dataset: str | None = None,
    file: str | None = None,
    language: str = "en",
    min_likelihood: float = 0.0,
) -> EcgCaptions:
    """Write a table with reports of the table of a set; see `medclip.api.captions.captions_from_ecg`."""
    check_output(source, form)
    read = read_table(source)
    column_map = ecg_map_of(read, dataset)
    try:
        reading = column_map.read(rows_of(read, column_map.uses, file), min_likelihood)
    except MedclipError as e:
        raise MedclipError(e.reason, e.message, where=read.where, hint=e.hint) from None
    records = [replace(row, file=record_file(row.file)) for row in placed(reading.rows, column_map, file)]
    progress.stage("Records", len(records))
    added: list[tuple[str, ...]] = []
    for row in records:
        added.append(_captions(row, form, language))
        progress.step()
    moved = moved_files([row.file for row in records], form.images or source.parent, form.out.parent)
    save_table(set_table(records, added, moved, _FIRST, column_map), form.out)
    reports = [row.report for row in records if row.report]
    own = [report.language or "unknown" for report in reports if report.text]
    return EcgCaptions(
        out=form.out,
        num_rows=len(records),
        num_captioned=sum(bool(a) for a in added),
        num_without_labels=sum(not a and not row.labels for row, a in zip(records, added, strict=True)),
        num_captions=sum(map(len, added)),
        num_short=sum(bool(row.codes) and len(a) < form.num_captions for row, a in zip(records, added, strict=True)),
        num_moved=sum(f is not None for f in moved),
        dataset=column_map.name,
        num_reports=len(own),
        left_out=dict(sorted(Counter(report.left_out for report in reports if report.left_out).items())),
        languages=dict(sorted(Counter(own).items())),
        min_likelihood=min_likelihood,
        notes=reading.notes,
    )


def _captions(row: EcgRow, form: CaptionsForm, language: str) -> tuple[str, ...]:
    own = (row.report.text,) if row.report and row.report.text else ()
    chance = generator_of([row.file, row.codes, language], form.seed)
    written = distinct_statement_reports(row.codes, form.num_captions, chance, language)
    return tuple(dict.fromkeys([*own, *written]))
