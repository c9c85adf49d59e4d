"""Shards with rewritten words: captions with their weights, the other texts in their roles, edited partners beside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.errors import MedclipError, Reason
from medclip.files.output import write_file
from medclip.files.tables.write import parquet_bytes
from medclip.pairs.sources.captioned_table import generator_of
from medclip.pairs.words.reports.mirrored_pairs import EditRow, mirrored_partner
from medclip.pairs.words.reports.rewrite_steps import RewriteSteps
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
    if not steps.edits.mirror:
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


def _candidates_of(w: RewrittenRow, *, keep_raw: bool) -> tuple[WeighedCaption, ...]:
    """Return the captions of which training draws one: the cleaned text where neither another passes nor raw stays.

    Of a row without words there are none: captions of labels are in new words each time.
    """
    if not w.row.raw.strip():
        return ()
    kept = [c for c in w.candidates if (keep_raw if c.kind == RAW else c.weight > 0)]
    return tuple(WeighedCaption(c.kind, c.text, c.weight) for c in kept) or (WeighedCaption("cleaned", w.positive, 1),)


def write_rewritten(folder: Path, out: Path, written: Sequence[RewrittenRow], steps: RewriteSteps) -> None:
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
        content = to_json(record, value.pop("meta"), {k: v for k, v in value.items() if k != "record"})
        return members | {"json": content} | ({"txt": caption.encode()} if "txt" in members else {})

    edits: list[EditRow] = []

    def beside(key: str, members: dict[str, bytes]) -> Partner | None:
        partner, row = mirrored_partner(key, members, steps.edits.without_letters)
        edits.append(row)
        return partner

    rewrite_shards(folder, out, change, beside=beside if steps.edits.mirror else None)
    if steps.edits.mirror:
        write_file(out.parent / EDITS, parquet_bytes(_table_of_edits(edits)))


def _table_of_edits(edits: Sequence[EditRow]) -> pa.Table:
    import pyarrow as pa

    names = ("key", "kind", "reason", "pair", "partner")
    schema = pa.schema([*((name, pa.string()) for name in names), ("entities", pa.list_(pa.string()))])
    return pa.Table.from_pylist([vars(row) for row in edits], schema=schema)
