"""Turn the table of a mammography set into a table for shards, with reports written of what it states.

Each set has a map of its columns (`medclip.files.tables.mammography`); the reports are those of
`medclip.pairs.words.breast_report`, or of a writer of your own whose reports are checked against the record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.errors import MedclipError, Reason
from medclip.files.tables.column_maps import mammography_map_of, placed, rows_of
from medclip.files.tables.mammography.mammogram_row import MammogramRow
from medclip.files.tables.read_table import read_table
from medclip.pairs.sources.captioned_table import CaptionsForm, CaptionsReport, generator_of, moved_files, set_table
from medclip.pairs.words.breast_check import breast_facts, check_report
from medclip.pairs.words.breast_report import distinct_reports
from medclip.pairs.words.caption_writer import CaptionWriter, CheckedWriter
from medclip.progress import Progress
from medclip.wording import count

if TYPE_CHECKING:
    import pyarrow as pa

_FIRST = ("file", "patient", "study", "modality", "laterality", "view", "view_kind", "exam_date", "age", "split")


def captions_of_mammography(
    source: Path,
    form: CaptionsForm,
    progress: Progress,
    *,
    dataset: str | None = None,
    findings: str | Path | None = None,
    file: str | None = None,
    writer: CaptionWriter | None = None,
) -> tuple[pa.Table, CaptionsReport]:
    """Return the table for shards of the table of a mammography set, with one row an image, and what became of it.

    Reports stand behind the texts that a table of your own had; what a radiologist wrote stands in `report`. They speak
    of the side of the image only, deny what was looked for and is not there, and state nothing that the table does not.
    """
    read = read_table(source)
    column_map = mammography_map_of(read, dataset)
    rows = rows_of(read, column_map.uses, file)
    more = None if findings is None else rows_of(read_table(Path(findings)), column_map.uses)
    base = form.images or source.parent
    try:
        reading = column_map.read(rows, more, base)
    except MedclipError as e:
        raise MedclipError(e.reason, e.message, where=read.where, hint=e.hint) from None
    mammograms = placed(reading.rows, column_map, file)
    _refuse_without_rows(mammograms, read.where)
    writing = CheckedWriter(form.num_captions, writer)
    progress.stage("Images", len(mammograms))
    added: list[tuple[str, ...]] = []
    for row in mammograms:
        added.append(_reports(row, form, writing))
        progress.step()
    moved = moved_files([row.file for row in mammograms], base, form.out.parent)
    lengths = [len(reports) for reports in added if reports]
    num_reports = sum(bool(row.report) for row in mammograms)
    set_aside = dict(sorted(reading.set_aside.items()))
    lines = [f"{column_map.name}: {count(len(rows), 'row')}, {count(len(mammograms), 'image')}."]
    if num_reports:
        lines.append(f"  {count(num_reports, 'image')} with a radiologist's own words, in `report`.")
    lines += [f"  {number:>7} set aside: {reason}" for reason, number in set_aside.items()]
    lines += [f"  {note}" for note in reading.notes]
    result = CaptionsReport(
        out=form.out,
        num_rows=len(mammograms),
        num_captioned=len(lengths),
        num_without_labels=len(mammograms) - len(lengths),
        num_captions=sum(lengths),
        num_short=sum(length < form.num_captions for length in lengths),
        num_by_writer=writing.num_by_writer,
        rejected_by_reason=dict(sorted(writing.rejected.items())),
        num_moved=sum(f is not None for f in moved),
        dataset=column_map.name,
        num_source_rows=len(rows),
        num_reports=num_reports,
        set_aside=set_aside,
        notes=reading.notes,
        lines=tuple(lines),
    )
    return set_table(mammograms, added, moved, _FIRST, column_map), result


def _refuse_without_rows(rows: Sequence[MammogramRow], where: object) -> None:
    if not rows:
        raise MedclipError(Reason.TABLE_INVALID, "no row of the table is an image of an exam.", where=where)


def _reports(row: MammogramRow, form: CaptionsForm, writing: CheckedWriter) -> tuple[str, ...]:
    rng = generator_of([row.file, asdict(row.record)], form.seed)
    ours = distinct_reports(row.record, form.num_captions, rng)
    return writing.captions(ours, breast_facts(row.record), partial(check_report, record=row.record))
