"""What is rewritten, and what becomes of it: rows of shards or of a table with their texts, reports and labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.output import digest_of
from medclip.files.tables.read_table import read_table
from medclip.files.tables.table import TextForm
from medclip.pairs.pile import need_table
from medclip.pairs.pile_columns import COLUMNS, TEXTS
from medclip.pairs.words.reports.balanced_edits import Editable, Negative
from medclip.shards.folder import GROUP, read_index
from medclip.shards.reading.samples import ShardReader
from medclip.shards.writing.table import label_columns, labels_in, modality_named

_KEYS = ("key", "uid", "id", "file", "study")
_SECTIONS = ("findings", "impression")


@dataclass(frozen=True)
class TextRow:
    """One image with what is written of it."""

    key: str
    split: str
    patient: str
    """Hash of shards, cell of a table; "" where nobody is named."""
    modality: str
    """Name of the modality, "" where it is not known."""
    texts: tuple[str, ...]
    report: str
    labels: Mapping[str, Any] = field(default_factory=dict)

    @property
    def raw(self) -> str:
        """The report, else the texts."""
        return self.report or " ".join(self.texts)


@dataclass(frozen=True)
class Candidate:
    """One caption that an image may be trained with."""

    kind: str
    """raw, findings, impression, cleaned, labels or agent."""
    text: str
    reason: str = ""
    """Why it has no weight; "" where it may have one."""
    alignment: float = float("nan")
    information: float = 0.0
    weight: float = 0.0
    """Share among the captions of the row that are not raw; of the raw text 1 where no other has any, else 0."""


@dataclass(frozen=True)
class RewrittenRow:
    """What became of one row."""

    row: TextRow
    reason: str
    """"" where there is a text; `no_text`, `nothing_left` after cleaning, or `polarity_conflict` with the labels."""
    positive: str = ""
    long: str = ""
    short: str = ""
    candidates: tuple[Candidate, ...] = ()
    editable: Editable | None = None
    negatives: tuple[Negative, ...] = ()
    tags: tuple[str, ...] = ()
    denied_tags: tuple[str, ...] = ()
    changes: Mapping[str, int] = field(default_factory=dict)

    @property
    def negative_reason(self) -> str:
        """Why it has no negative: `no_change` that it could have, or `no_partner` for one; "" where it has some."""
        if self.negatives:
            return ""
        return "no_partner" if self.editable is not None and self.editable.edits else "no_change"


@dataclass(frozen=True, eq=False)
class TextRows:
    """All rows of a place."""

    rows: tuple[TextRow, ...]
    place: Path
    digest: str
    """Hash of all that the rows depend on."""
    is_shards: bool


def read_text_rows(
    place: Path, *, modality: str = "", columns: Mapping[str, str] | None = None, form: TextForm | None = None
) -> TextRows:
    """Read shards of all splits, or a table.

    Args:
        place: Shard folder, or a CSV, TSV or Parquet table.
        modality: Modality of a table that has no such column.
        columns: Columns of a table by what they hold: `key`, `patient`, `report`, `findings`, `impression`.
        form: Form of a table's text, where the user can say so.

    Raises:
        MedclipError: WRONG_USE for a modality or a column that is not there, and for what is of a table where shards
            are read; TABLE_INVALID; NOT_SUPPORTED_YET for shards of examinations; as `ShardReader`.
    """
    if place.is_dir():
        for name, value in (("columns", columns), ("modality", modality)):
            if value:
                message = f"`{name}` of the steps is of a table, and shards say it themselves."
                raise MedclipError(Reason.WRONG_USE, message, where=place, hint=f"Leave out `{name}`.")
        need_table([place], form or TextForm())
        index = read_index(place)
        if (index.get("options") or {}).get(GROUP):
            raise MedclipError(
                Reason.NOT_SUPPORTED_YET,
                "these shards hold examinations, whose views have words of their own.",
                where=place,
                hint="Rewrite the table, and build shards of what comes out; or build shards without --group.",
            )
        rows = tuple(_of_shards(place, index))
        return TextRows(rows, place, digest_of([index["tables"], index["shards"]]), True)
    rows = tuple(_of_table(place, modality, columns or {}, form))
    return TextRows(rows, place, digest_of([[vars(r) for r in rows]]), False)


def _of_shards(folder: Path, index: Mapping[str, Any]) -> Iterator[TextRow]:
    for split in index["counts"]["by_split"]:
        with ShardReader(folder, split) as reader:
            for i in range(len(reader)):
                record, meta = reader.record(i)
                key, modality = reader.key(i), "" if record.modality is None else str(record.modality)
                patient = str(meta.get("patient") or "")
                yield TextRow(key, split, patient, modality, record.texts, record.report or "", record.labels)


def _of_table(place: Path, modality: str, columns: Mapping[str, str], form: TextForm | None) -> Iterator[TextRow]:
    read = read_table(place, form=form)
    table = read.with_names((*COLUMNS, *TEXTS, *_SECTIONS))  # as a pile of pairs reads them
    columns = {what: table.names[read.names.index(read.need(name))] for what, name in columns.items()}
    labels = label_columns(table.names, table.where, ())

    def column(what: str, *names: str) -> str | None:
        return columns.get(what) or next((n for n in names if n in table.names), None)

    captions = [name for name in TEXTS if name in table.names and name not in columns.values()]
    key, patient = column("key", *_KEYS), column("patient", "patient")
    report, sections = column("report", "report"), {s: column(s, s) for s in _SECTIONS}
    if report is None and not any(sections.values()) and not labels and not captions:
        raise MedclipError(
            Reason.TABLE_INVALID,
            "it has no column of texts, and no labels.",
            where=place,
            hint="Columns `report`, `findings`, `impression`, `caption`, `captions`, `text` and `label:TASK:CLASS` are "
            "read; others can be named under `columns` in the steps.",
        )
    seen: dict[str, int] = {}
    for number, cell in enumerate(table.rows(), 1):
        name = cell.get(key or "", "") or f"row {number}"
        seen[name] = seen.get(name, 0) + 1
        name = name if seen[name] == 1 else f"{name} ({seen[name]})"
        parts = [f"{s.upper()}: {cell[c]}" for s, c in sections.items() if c and cell.get(c, "").strip()]
        written = cell.get(report or "", "").strip() or "\n".join(parts)
        texts = tuple(line.strip() for c in captions for line in cell.get(c, "").split("\n") if line.strip())
        try:
            kind = modality_named(cell.get("modality", "") or modality)
            of_row = labels_in(cell, labels)
        except MedclipError as e:
            raise MedclipError(e.reason, f"row {number}: {e.message}", where=place, hint=e.hint) from None
        yield TextRow(
            name,
            cell.get("split", ""),
            cell.get(patient or "", ""),
            "" if kind is None else str(kind),
            texts,
            written,
            of_row,
        )
