"""Shards with rewritten words: captions with their weights, the other texts in their roles, edited partners beside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.errors import MedclipError, Reason
from medclip.files.output import digest_of, write_file
from medclip.files.tables.cells import DAYS_EXPECTED, day_of
from medclip.files.tables.read_table import read_table
from medclip.files.tables.write import parquet_bytes
from medclip.models.packs.manifest import file_sha256
from medclip.pairs.sample_table import rows_by_sample
from medclip.pairs.sources.captioned_table import generator_of
from medclip.pairs.words.reports import mirrored_pairs
from medclip.pairs.words.reports.before_after import Dated, dated_pairs
from medclip.pairs.words.reports.caption_weights import CONFLICT
from medclip.pairs.words.reports.edited_pairs import EditRow
from medclip.pairs.words.reports.masked_devices import masked_partner
from medclip.pairs.words.reports.mirrored_pairs import mirrored_partner
from medclip.pairs.words.reports.rewrite_steps import EditSteps, RewriteSteps
from medclip.pairs.words.reports.rewriting_rows import RewrittenRow, TextRows
from medclip.shards.reading.samples import ShardReader
from medclip.shards.sample_json import from_json, to_json
from medclip.shards.writing.rewrite import TRAIN, Partner, rewrite_shards
from medclip.text.captions.candidates import RAW, WeighedCaption
from medclip.text.captions.draw import draw_caption
from medclip.training.batches.order import check_sources

if TYPE_CHECKING:
    import pyarrow as pa

EDITS = "edits.parquet"
"""One row for each training sample that an edited partner was looked for, with its reason."""


def check_edits(rows: TextRows, steps: RewriteSteps) -> None:
    """Refuse edited partners of a table, and sources that no shard has.

    Raises:
        MedclipError: WRONG_USE for a table; RECIPE_INVALID for a source that is not there.
    """
    if not steps.edits.are_wanted:
        return
    if not rows.is_shards:
        raise MedclipError(
            Reason.WRONG_USE,
            "edited partners are written into shards; this is a table.",
            where=rows.place,
            hint="Build shards of it first, or leave `edits` out.",
        )
    with ShardReader(rows.place, TRAIN) as reader:
        check_sources(reader.columns, steps.edits.without_letters)


@dataclass(frozen=True)
class EditTable:
    """What the user's table says of samples, by key of the sample or sha256 of its file."""

    days: Mapping[str, date]
    masks: Mapping[str, Path]
    digest: str


def read_edit_table(edits: EditSteps, folder: Path) -> EditTable:
    """Read the table that the steps name; an empty one where they name none.

    Args:
        edits: Steps.
        folder: Folder that the table's path is relative to.

    Raises:
        MedclipError: TABLE_INVALID for a column that is not there, or a day that is none; as `read_table`.
    """
    days: dict[str, date] = {}
    masks: dict[str, Path] = {}
    if edits.table is None:
        return EditTable(days, masks, "")
    path = folder / edits.table
    table = read_table(path)
    for name in filter(None, (edits.date, edits.device_mask)):
        table.need(name)
    for number, (sample, cell) in enumerate(rows_by_sample(table, path), 1):
        try:
            day = day_of(cell.get(edits.date or "", ""))
        except ValueError:
            raise MedclipError(
                Reason.TABLE_INVALID,
                f"row {number}: `{edits.date}` is no date.",
                where=path,
                hint=f"Use {DAYS_EXPECTED}.",
            ) from None
        if sample and day is not None:
            days[sample] = day
        if sample and cell.get(edits.device_mask or "", ""):
            masks[sample] = path.parent / cell[edits.device_mask or ""]
    facts = [sorted((k, day.isoformat()) for k, day in days.items()), sorted((k, m.name) for k, m in masks.items())]
    hashes = [file_sha256(m) if m.is_file() else "" for _, m in sorted(masks.items())]
    return EditTable(days, masks, digest_of([facts, hashes]))


def _dated(shards: Path, written: Mapping[str, RewrittenRow], table: EditTable) -> list[Dated]:
    """Return the images of the training split with their days."""
    images: list[Dated] = []
    with ShardReader(shards, TRAIN) as reader:
        for n in range(len(reader)):
            key, (record, meta) = reader.key(n), reader.record(n)
            row = written[key]
            look = (row.row.modality, record.view or "", record.laterality or "")
            day = table.days.get(key) or table.days.get(str(meta.get("sha256")))
            text = "" if row.reason else row.positive  # captions of labels are in new words each time
            images.append(Dated(key, row.row.patient, look, text, day))
    return images


def _candidates_of(w: RewrittenRow, *, keep_raw: bool) -> tuple[WeighedCaption, ...]:
    """Return the captions of which training draws one: the cleaned text where neither another passes nor raw stays.

    Of a row without words there are none: captions of labels are in new words each time.
    """
    if not w.row.raw.strip():
        return ()
    kept = [c for c in w.candidates if (keep_raw and c.reason != CONFLICT if c.kind == RAW else c.weight > 0)]
    return tuple(WeighedCaption(c.kind, c.text, c.weight) for c in kept) or (WeighedCaption("cleaned", w.positive, 1),)


def write_rewritten(
    folder: Path, out: Path, written: Sequence[RewrittenRow], steps: RewriteSteps, table: EditTable
) -> None:
    """Write the shards again: captions with their weights in `candidates`, and the other texts in their roles.

    Nothing of the raw text stays where training would quote it: a report becomes what is left of it, and of a row of
    which nothing is left, captions say what its labels do.
    """
    by_key = {w.row.key: w for w in written}

    def change(key: str, members: dict[str, bytes]) -> dict[str, bytes]:
        w = by_key[key]
        if w.reason == "no_text":
            return members
        record, _ = from_json(members["json"])
        value = json.loads(members["json"])
        if w.positive:
            candidates = _candidates_of(w, keep_raw=steps.captions.keep_raw)
            captions = [w.positive, *(c.text for c in candidates if not c.is_raw)]
            record = replace(
                record,
                texts=tuple(dict.fromkeys(captions)),
                candidates=candidates,
                report=w.long if record.report else None,
                negatives=tuple(n.text for n in w.negatives),
                long_captions=(w.long,),
                tags=w.tags,
                absent_tags=w.denied_tags,
            )
            edits = [{k: v for k, v in vars(n).items() if k != "text"} for n in w.negatives]
            value["rewritten"] = {"edits": edits}
            caption = w.positive
        else:
            record = replace(record, texts=(), report=None)
            caption = draw_caption(record, generator_of([key], steps.seed))
        if key in pairs:
            record = replace(record, edit_pairs=(pairs[key],))
        content = to_json(record, value.pop("meta"), {k: v for k, v in value.items() if k != "record"})
        return members | {"json": content} | ({"txt": caption.encode()} if "txt" in members else {})

    pairs, rows = dated_pairs(_dated(folder, by_key, table)) if steps.edits.date else ({}, [])

    def beside(key: str, members: dict[str, bytes]) -> Partner | None:
        """Make the first partner that the sample can have; it has one at most."""
        partner: Partner | None = None
        if steps.edits.device_mask:
            meta = from_json(members["json"])[1]
            mask = table.masks.get(key) or table.masks.get(str(meta.get("sha256")))
            partner, row = masked_partner(key, members, mask)
            if partner is not None and key in pairs:
                partner, row = None, EditRow(key, row.kind, "has_partner")
            rows.append(row)
        if steps.edits.mirror:
            if partner is not None or key in pairs:
                rows.append(EditRow(key, mirrored_pairs.KIND, "has_partner"))
            else:
                edits = steps.edits
                partner, row = mirrored_partner(
                    key, members, edits.without_letters, detect_letters=edits.detect_letters
                )
                rows.append(row)
        return partner

    rewrite_shards(folder, out, change, beside=beside if steps.edits.are_wanted else None, pairs=pairs)
    if steps.edits.are_wanted:
        write_file(out.parent / EDITS, parquet_bytes(_table_of_edits(rows)))


def _table_of_edits(edits: Sequence[EditRow]) -> pa.Table:
    import pyarrow as pa

    names = ("key", "kind", "reason", "pair", "partner", "change")
    schema = pa.schema([*((name, pa.string()) for name in names), ("entities", pa.list_(pa.string()))])
    return pa.Table.from_pylist([vars(row) for row in edits], schema=schema)
