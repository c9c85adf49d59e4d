"""Turn the table of an ECG set into pairs: cleaned reports, reports written of SCP-ECG statements, and labels.

Each set has a map of its columns (`medclip.files.tables.ecg`); what is taken out of reports is in
`medclip.text.ecg_statements`. Records that have codes and no words get reports in English or German.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.errors import MedclipError
from medclip.files.tables.column_maps import ecg_map_of, placed, rows_of
from medclip.files.tables.ecg.ecg_row import EcgRow, record_file
from medclip.files.tables.read_table import read_table
from medclip.pairs.sources.captioned_table import CaptionsForm, CaptionsReport, generator_of, moved_files, set_table
from medclip.progress import Progress
from medclip.text.ecg_statements import ENGLISH, GERMAN, Statement, statements
from medclip.text.vocabulary.prompts import without_article
from medclip.wording import count

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.random import Generator

_TRIES = 20


def distinct_statement_reports(
    codes: Sequence[str], n: int, rng: Generator, language: str = ENGLISH
) -> tuple[str, ...]:
    """Write `n` reports of what is stated: rhythm, diagnoses, forms, each once, in lower case as cleaned reports are.

    Args:
        codes: SCP-ECG statements; others than the 71 are passed over.
        n: Number of reports that are wanted.
        rng: Source of chance.
        language: en or de.

    Returns:
        At most `n`, no two alike; none without a statement.

    Example:
        >>> import numpy as np
        >>> sorted(distinct_statement_reports(["AFIB"], 9, np.random.default_rng(0), "de"))
        ['absolute arrhythmie bei vorhofflimmern', 'vorhofflimmern']
    """
    stated = [statements()[c] for c in codes if c in statements()]
    stated.sort(key=lambda s: (not s.rhythm, not s.diagnostic))
    reports: dict[str, None] = {}
    for _ in range(n * _TRIES if stated else 0):
        reports[". ".join(_wording(s, rng, language) for s in stated)] = None
        if len(reports) == n:
            break
    return tuple(reports)


def _wording(statement: Statement, rng: Generator, language: str) -> str:
    words = statement.german if language == GERMAN else statement.english
    return without_article(words[int(rng.integers(len(words)))]).lower()


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


def captions_of_ecg(
    source: Path,
    form: CaptionsForm,
    progress: Progress,
    *,
    dataset: str | None = None,
    file: str | None = None,
    language: str = "en",
    min_likelihood: float = 0.0,
) -> tuple[pa.Table, CaptionsReport]:
    """Return the table for shards of the table of an ECG set, with one row a record, and what became of its reports.

    Texts of a row are those that the table had there, the set's own report, cleaned, then those written of its codes. A
    report that says nothing of the record is left out and counted. What nobody looked for has no label.
    """
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
    reports = [row.report for row in records if row.report]
    languages = dict(sorted(Counter(report.language or "unknown" for report in reports if report.text).items()))
    num_reports = sum(languages.values())
    left_out = dict(sorted(Counter(report.left_out for report in reports if report.left_out).items()))
    lines = [f"{column_map.name}: {count(len(records), 'record')}."]
    if languages:
        by_language = ", ".join(f"{name} {number}" for name, number in languages.items())
        lines.append(f"  {count(num_reports, 'report')} of the set stay, cleaned ({by_language}).")
    lines += [f"  {number:>7} left out: {reason}" for reason, number in left_out.items()]
    lines += [f"  {note}" for note in reading.notes]
    result = CaptionsReport(
        out=form.out,
        num_rows=len(records),
        num_captioned=sum(bool(a) for a in added),
        num_without_labels=sum(not a and not row.labels for row, a in zip(records, added, strict=True)),
        num_captions=sum(map(len, added)),
        num_short=sum(bool(row.codes) and len(a) < form.num_captions for row, a in zip(records, added, strict=True)),
        num_moved=sum(f is not None for f in moved),
        dataset=column_map.name,
        num_reports=num_reports,
        left_out=left_out,
        languages=languages,
        min_likelihood=min_likelihood,
        notes=reading.notes,
        lines=tuple(lines),
    )
    return set_table(records, added, moved, _FIRST, column_map), result


def _captions(row: EcgRow, form: CaptionsForm, language: str) -> tuple[str, ...]:
    set_report = (row.report.text,) if row.report and row.report.text else ()
    chance = generator_of([row.file, row.codes, language], form.seed)
    written = distinct_statement_reports(row.codes, form.num_captions, chance, language)
    return tuple(dict.fromkeys([*set_report, *written]))
