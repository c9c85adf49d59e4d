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
from medclip.files.tables.column_maps import placed, rows_of
from medclip.files.tables.mammography.column_maps import map_of
from medclip.files.tables.mammography.mammogram_row import MammogramRow
from medclip.files.tables.read_table import read_table
from medclip.progress import Progress, Silent
from medclip.result import named_counts
from medclip.shards.writing.captions import (
    AskedWriter,
    CaptionsReport,
    check_output,
    generator_of,
    moved_files,
    save_table,
    set_table,
)
from medclip.text.breast.check import breast_facts, check_report
from medclip.text.breast.report import distinct_reports
from medclip.text.captions.caption_writer import CaptionWriter

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


def captions_from_mammography(
    table: Path | str,
    out: Path | str,
    *,
    dataset: str | None = None,
    findings: Path | str | None = None,
    file: str | None = None,
    n: int = 10,
    seed: int = 0,
    writer: CaptionWriter | None = None,
    images: Path | str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> MammographyCaptions:
    """Write a table for `medclip shards build` of a mammography set's own table: one row an image, with its labels and
    with `n` reports that say what the table states of the breast.

    Reports stand in the column `captions`, behind the texts that a table of your own had there; what a radiologist
    wrote in `report`. They speak of the side of the image only, deny what was looked for and is not there, and state
    nothing that the table does not. Those of a row depend on the seed and on what is stated of it, and on nothing else.

    Args:
        table: CSV, TSV or Parquet: the annotations of VinDr-Mammo, RSNA, CBIS-DDSM, DDSM, CDD-CESM, EMBED or INbreast,
            or a table of your own.
        out: The file to write: .csv, .tsv, .parquet or .pq.
        dataset: Name of the set; None: told from the columns.
        findings: A second table with one row a finding, for EMBED.
        file: Where an image lies, with columns of the table in braces: "{study_id}/{image_id}.png". None: as the set
            is published.
        n: Reports for each image, at least 1.
        seed: Another seed gives other wordings.
        writer: A function that writes reports from facts, asked once for all images with the same facts; what fails
            `check_report` is replaced by a report of medclip's own and counted.
        images: Folder of the set's images; the table's own where None. No image is opened.
        overwrite: Replace `out` where it exists.
        progress: Counts the images.

    Returns:
        Counts, and what to know of the set.

    Raises:
        MedclipError: TABLE_INVALID or MISSING_FILE from a table, with the row; WRONG_USE for a set, a place of images,
            an output or a number that cannot be; OUTPUT_IN_USE, DISK_FULL, PERMISSION_DENIED.
    """
    source, target = Path(table), Path(out)
    check_output(source, target, n, overwrite)
    read = read_table(source)
    column_map = map_of(read, dataset)
    rows = rows_of(read, column_map.uses, file)
    more = None if findings is None else rows_of(read_table(Path(findings)), column_map.uses)
    base = Path(images) if images is not None else source.parent
    try:
        reading = column_map.read(rows, more, base)
    except MedclipError as e:
        raise MedclipError(e.reason, e.message, where=read.where, hint=e.hint) from None
    mammograms = placed(reading.rows, column_map, file)
    _refuse_without_rows(mammograms, read.where)
    asked = AskedWriter(n, writer)
    progress = progress or Silent()
    progress.stage("Images", len(mammograms))
    added: list[tuple[str, ...]] = []
    for row in mammograms:
        added.append(_reports(row, n, seed, asked))
        progress.step()
    moved = moved_files([row.file for row in mammograms], base, target.parent)
    save_table(set_table(mammograms, added, moved, _FIRST, column_map), target)
    lengths = [len(reports) for reports in added if reports]
    return MammographyCaptions(
        out=target,
        num_rows=len(mammograms),
        num_captioned=len(lengths),
        num_without_labels=len(mammograms) - len(lengths),
        num_captions=sum(lengths),
        num_short=sum(length < n for length in lengths),
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


def _reports(row: MammogramRow, n: int, seed: int, asked: AskedWriter) -> tuple[str, ...]:
    rng = generator_of([row.file, asdict(row.record)], seed)
    ours = distinct_reports(row.record, n, rng)
    return asked.captions(ours, breast_facts(row.record), partial(check_report, record=row.record))
