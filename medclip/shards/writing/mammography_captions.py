"""Turn the table of a mammography set into a table for shards, with reports written of what it states.

Each set has a map of its columns (`medclip.files.tables.mammography`); the reports are those of `medclip.text.breast`,
or of a writer of your own whose reports are checked against the record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from medclip.errors import MedclipError, Reason
from medclip.files.tables.column_maps import mammography_map_of, placed, rows_of
from medclip.files.tables.mammography.mammogram_row import MammogramRow
from medclip.files.tables.read_table import read_table
from medclip.progress import Progress
from medclip.result import named_counts
from medclip.shards.writing.captions import (
    AskedWriter,
    CaptionsForm,
    CaptionsReport,
    check_output,
    generator_of,
    moved_files,
    save_table,
    set_table,
)
from medclip.text.breast.check import breast_facts, check_report
from medclip.text.breast.report import distinct_reports

_FIRST = ("file", "patient", "study", "modality", "laterality", "view", "view_kind", "exam_date", "age", "split")


@dataclass(frozen=True, repr=False)
class MammographyCaptions(CaptionsReport):
    """What became of the table of a set; its rows are images."""

    dataset: str = ""
    """Whose columns it has."""
    num_source_rows: int = 0
    """Rows of the set's table: several of one image are one row of the new table."""
    num_reports: int = 0
    """Images with a report that a radiologist wrote."""
    set_aside: Mapping[str, int] = field(default_factory=dict)
    """Images that are no view of an exam, by reason."""
    notes: tuple[str, ...] = ()

    def _facts(self) -> dict[str, object]:
        facts = super()._facts()
        return {
            "set": f"{self.dataset}, {self.num_source_rows} rows",
            "captions": facts["captions"],
            "notes": " ".join(self.notes),
            "set aside": named_counts(self.set_aside),
            "reports of a radiologist": self.num_reports,
            **facts,
        }


def write_mammography_captions(
    source: Path,
    form: CaptionsForm,
    progress: Progress,
    *,
    dataset: str | None = None,
    findings: Path | None = None,
    file: str | None = None,
) -> MammographyCaptions:
    """Write a table with reports of the table of a set; see `medclip.api.captions.captions_from_mammography`."""
    check_output(source, form)
    read = read_table(source)
    column_map = mammography_map_of(read, dataset)
    rows = rows_of(read, column_map.uses, file)
    more = None if findings is None else rows_of(read_table(findings), column_map.uses)
    base = form.images or source.parent
    try:
        reading = column_map.read(rows, more, base)
    except MedclipError as e:
        raise MedclipError(e.reason, e.message, where=read.where, hint=e.hint) from None
    mammograms = placed(reading.rows, column_map, file)
    _refuse_without_rows(mammograms, read.where)
    asked = AskedWriter(form.num_captions, form.writer)
    progress.stage("Images", len(mammograms))
    added: list[tuple[str, ...]] = []
    for row in mammograms:
        added.append(_reports(row, form, asked))
        progress.step()
    moved = moved_files([row.file for row in mammograms], base, form.out.parent)
    save_table(set_table(mammograms, added, moved, _FIRST, column_map), form.out)
    lengths = [len(reports) for reports in added if reports]
    return MammographyCaptions(
        out=form.out,
        num_rows=len(mammograms),
        num_captioned=len(lengths),
        num_without_labels=len(mammograms) - len(lengths),
        num_captions=sum(lengths),
        num_short=sum(length < form.num_captions for length in lengths),
        num_by_writer=asked.num_by_writer,
        rejected_by_reason=dict(sorted(asked.rejected.items())),
        num_moved=sum(f is not None for f in moved),
        dataset=column_map.name,
        num_source_rows=len(rows),
        num_reports=sum(bool(row.report) for row in mammograms),
        set_aside=dict(sorted(reading.set_aside.items())),
        notes=reading.notes,
    )


def _refuse_without_rows(rows: Sequence[MammogramRow], where: object) -> None:
    if not rows:
        raise MedclipError(Reason.TABLE_INVALID, "no row of the table is an image of an exam.", where=where)


def _reports(row: MammogramRow, form: CaptionsForm, asked: AskedWriter) -> tuple[str, ...]:
    rng = generator_of([row.file, asdict(row.record)], form.seed)
    ours = distinct_reports(row.record, form.num_captions, rng)
    return asked.captions(ours, breast_facts(row.record), partial(check_report, record=row.record))
